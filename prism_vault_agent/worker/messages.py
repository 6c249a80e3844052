"""What the front and a worker say to each other: length-prefixed JSON over a socket pair, descriptors beside it.

A worker does one job and ends. Values never travel here: a job carries the token and the references, its answer carries names,
versions and leases.

==============  ==========================================================  ==========================================
job             fields                                                      answer
==============  ==========================================================  ==========================================
``resolve``     token, bindings [[name, reference, wanted or null]],        names, leases, mounts
                allow_names, mounts, child (what ``vault.child.make``
                wants), room (bytes; see ``Room``), deadline
``credential``  as resolve without room; credential [name, variable, file]  names, leases, mounts
``deliver``     head (bytes of the answer's head, latin-1; empty for        delivered
                none), deadline, and the receiver's socket as a descriptor;
                only after resolve or credential
``stage``       as resolve without room; scope, files (each a ``File``),    names, leases, mounts,
                told (for the record), place (its path), helper (path of    staged (``Staged``)
                its socket, or nothing), and the place as a descriptor
``stage_each``  as stage; each (scope, files, told, bindings, allow_names   each (as stage, or an error), or
                of one), without child                                      alone: stage them one by one
``login``       deadline                                                    the token and its facts (``VaultToken``)
``renew``       token, accessor, deadline                                   seconds
``identity``    token, role, deadline                                       value, seconds
``standing``    token, versions [[path, number]], mounts, unlisted          ``Standing``, with withdrawn as
                (folders), deadline; look_up where mounts may be unknown    [[path, number, how]]
``left``        token, accessors, leases (lists), deadline                  left {accessor or lease: seconds}
``extend``      token, accessors, leases {each: seconds}, deadline          left, as above
``give_back``   token, accessor, leases, deadline                           remaining (leases)
``rights``      token, bindings as in resolve, mounts, deadline             missing (each a ``Right``), count
``health``      deadline                                                    nothing
``revoke``      token, deadline                                             nothing
==============  ==========================================================  ==========================================

Where ``resolve`` or ``stage`` are about to read a path that may give a lease, they first answer ``{"child": {"accessor",
"seconds", "orphan"}}``: what the lease will hang on. The front keeps that durably, says ``{"do": "go"}``, and gets the answer.

``deliver`` first answers ``BEGUN``, before it writes anything: a worker that is lost without that has delivered nothing.

``deadline`` is CLOCK_MONOTONIC seconds, which all processes of a host share. A failed job answers ``{"error": ...}`` as
``errors.to_plain`` describes it.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

from prism_vault_agent.errors import ProtocolError

Message = dict[str, Any]
LARGEST: Final = 8 * 1024 * 1024
LENGTH: Final = struct.Struct("!I")
BEGUN: Final[Message] = {"begun": True}


@dataclass(frozen=True, slots=True)
class Room:
    """What the kernel will let the receiver pass to its command, beside what it passes already (execve(2), bytes).

    ``used`` counts the kept environment and the arguments, each string with its NUL and its pointer; ``total`` is the limit.
    """

    used: int
    total: int


def encode(message: Message) -> bytes:
    """Return one frame."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(body)) + body


def send(peer: socket.socket, message: Message) -> None:
    """Send one frame, blocking."""
    peer.sendall(encode(message))


def receive(peer: socket.socket) -> tuple[Message, int | None] | None:
    """Return the next frame and the descriptor that came with it, blocking; None when the peer has gone."""
    try:
        head, descriptors, _, _ = socket.recv_fds(peer, LENGTH.size, 1)
    except ConnectionResetError:  # it ended before it had read all that we sent
        return None
    if not head:
        return None
    body = _exactly(peer, LENGTH.unpack(head + _exactly(peer, LENGTH.size - len(head)))[0])
    return json.loads(body), (descriptors[0] if descriptors else None)


def _exactly(peer: socket.socket, count: int) -> bytes:
    if count > LARGEST:
        raise ProtocolError("a message between our own processes is too large")
    parts = []
    while count:
        part = peer.recv(min(count, 1 << 20))
        if not part:
            raise ProtocolError("a message between our own processes was cut short")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
