"""What the agent and its helper say to each other: packets of a Unix SOCK_SEQPACKET socket, a descriptor beside them.

A request is nine bytes: the verb and two numbers, in network order. An answer is one byte and, where it is a refusal, its line.

=========  ======  ======================  ==========================================  ================================
verb       value   numbers                 descriptor                                  answer
=========  ======  ======================  ==========================================  ================================
``CHOWN``  1       user, group             a rendered file (O_PATH will do)            done
``OPEN``   2       0, 0                    a rendered file (O_PATH will do)            done, and the file, to be read
``KILL``   3       signal, 0               a process (pidfd_open(2)), or a group       done, or ended: it has ended
``MOUNT``  4       0, 0                    none                                        done
``UNIT``   5       which (see ``unit_of``)  none                                        done, when systemd has done it
``GROUP``  6       its run (``group_of``)   a process                                   done: it is in a control group of that run
``LEAVE``  7       0, 0                    the group's directory (O_PATH will do)      done: nobody is in it, and it is gone
=========  ======  ======================  ==========================================  ================================
"""

from __future__ import annotations

import array
import contextlib
import enum
import hashlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

REQUEST: Final = struct.Struct("!BII")
_NUMBERS: Final = struct.Struct("!II")
LONGEST_LINE: Final = 1024
# Room for more descriptors than anybody may send, so that those are seen and refused.
_ROOM: Final = socket.CMSG_SPACE(4 * array.array("i").itemsize)


class Verb(enum.IntEnum):
    """What is asked for."""

    CHOWN = 1
    OPEN = 2
    KILL = 3
    MOUNT = 4
    UNIT = 5
    GROUP = 6
    LEAVE = 7


class Said(enum.IntEnum):
    """How an answer begins."""

    DONE = 0
    REFUSED = 1
    ENDED = 2


WITHOUT_DESCRIPTOR: Final = (Verb.MOUNT, Verb.UNIT)


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``numbers`` are 0 where the verb has none."""

    verb: Verb
    numbers: tuple[int, int] = (0, 0)


class Malformed(ValueError):
    """A packet that is no request, or no answer."""


def unit_of(unit: str, how: str) -> tuple[int, int]:
    """Return what stands for a unit and what is done to it: 64 bits of a hash, to be found among those that root has named."""
    return _NUMBERS.unpack(hashlib.sha256(f"{unit}\0{how}".encode()).digest()[: _NUMBERS.size])


def group_of(run: str) -> tuple[int, int]:
    """Return what stands for a run in the name of its control group: 64 bits of a hash, which a request has room for."""
    return _NUMBERS.unpack(hashlib.sha256(run.encode()).digest()[: _NUMBERS.size])


def encode(request: Request) -> bytes:
    """Return the packet of a request."""
    return REQUEST.pack(request.verb, *request.numbers)


def decode(packet: bytes) -> Request:
    """Return the request that a packet is, or raise ``Malformed``: no length, verb or number but those of the table."""
    if len(packet) != REQUEST.size:
        raise Malformed("a request has nine bytes")
    verb, first, second = REQUEST.unpack(packet)
    if verb not in tuple(Verb):
        raise Malformed("there is no such verb")
    request = Request(Verb(verb), (first, second))
    if (request.verb in (Verb.OPEN, Verb.MOUNT, Verb.LEAVE) and (first or second)) or (request.verb == Verb.KILL and second):
        raise Malformed("a number stands where none belongs")
    return request


def encode_answer(said: Said, line: str = "") -> bytes:
    """Return the packet of an answer; a line is cut to what one may have."""
    return bytes([said]) + line.encode("ascii", "backslashreplace")[:LONGEST_LINE]


def decode_answer(packet: bytes) -> tuple[Said, str]:
    """Return what an answer says, or raise ``Malformed``."""
    if not packet or packet[0] not in tuple(Said) or len(packet) > 1 + LONGEST_LINE:
        raise Malformed("that is no answer of the helper's")
    return Said(packet[0]), packet[1:].decode("ascii", "replace")


def receive(connection: socket.socket, largest: int) -> tuple[bytes, list[int]]:
    """Return the next packet and the descriptors that came with it, which are the caller's to close; empty at the end.

    Raises ``Malformed`` for a larger packet or more descriptors than there is room for; nothing of them stays open then.
    """
    packet, beside, flags, _ = connection.recvmsg(largest, _ROOM, socket.MSG_CMSG_CLOEXEC)
    passed = array.array("i")
    for level, kind, data in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            passed.frombytes(data[: len(data) - len(data) % passed.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close(passed)
        raise Malformed("it is larger than it may be")
    return packet, list(passed)


def send(connection: socket.socket, packet: bytes, descriptor: int | None = None) -> None:
    """Send one packet, with a descriptor beside it."""
    beside = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    connection.sendmsg([packet], beside, socket.MSG_NOSIGNAL)


def close(descriptors: list[int] | array.array[int]) -> None:
    """Close descriptors, whatever they are."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
