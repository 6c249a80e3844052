"""An audit event as bytes: canonical JSON, chained by hash to the previous event of the same host and epoch. Pure but for ids.

An event is hashed exactly as it is sent and stored; nobody re-serialises it. Canonical here means: UTF-8, keys sorted,
no spaces, no floating point numbers (the subset of RFC 8785 on which all serialisers agree).

Fields that every event has:

=============  ====================================================================================
``v``          1
``kind``       reserved, success, denied, failure, abandoned, cleared, policy or admin
``event_id``   UUID version 7 as 32 hex digits, made by the sender: the idempotency key
``reservation`` UUID as 32 hex digits; ``pva_`` + this is the audit id that people quote
``host``       who made the event; central compares it with the sender's credential
``epoch``      a new UUID version 7 for each start of the sender, so that ``seq`` starts anew
``seq``        1, 2, 3 ... without gaps within one host and epoch
``prev``       SHA-256 (hex) of the previous event's bytes in that epoch; 64 zeros for the first
``at``         the sender's wall clock, milliseconds since 1970 UTC
``boot_ms``    the sender's CLOCK_BOOTTIME in milliseconds, which no one can set back
=============  ====================================================================================
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import Final, NoReturn

FIRST: Final = "0" * 64
# What an agent's row about a signal says as its ``reason``: it has begun to do it, it has done it.
SIGNAL_RECEIVED: Final = "signal_received"
SIGNAL_DONE: Final = "signal_done"
# Why central takes no release of an installation: another one has its host's name, or a later start of the same one.
NAME_HELD: Final = "name_held"
SUPERSEDED: Final = "superseded"
NAMELESS: Final = frozenset((NAME_HELD, SUPERSEDED))
Fields = dict[str, object]


def canonical(fields: Fields) -> bytes:
    """Return the one byte string that stands for ``fields``. Raises ``TypeError`` for a float, which has no such string."""
    _refuse_floats(fields)
    return _ENCODER.encode(fields).encode()


def parse(body: bytes) -> Fields:
    """Return the fields that ``body`` holds. Raises ``ValueError`` for bytes that :func:`canonical` would not have made."""
    fields = _DECODER.decode(body.decode())
    if not isinstance(fields, dict) or _ENCODER.encode(fields).encode() != body:
        raise ValueError("not canonical")
    return fields


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError("a floating point number has no canonical form")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for each in inner:
        if type(each) not in _NEVER_FLOATS:
            _refuse_floats(each)


_NEVER_FLOATS: Final = frozenset((str, int, bool, type(None)))


def _refuse_number(_text: str) -> NoReturn:
    raise ValueError("a floating point number has no canonical form")


_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_DECODER: Final = json.JSONDecoder(parse_float=_refuse_number, parse_constant=_refuse_number)


def digest(body: bytes) -> str:
    """Return the hash that the next event's ``prev`` must hold."""
    return hashlib.sha256(body).hexdigest()


def new_id() -> str:
    """Return a UUID version 7 (RFC 9562, section 5.7) as 32 hex digits; they sort by the time of making."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    return (
        f"{milliseconds & (1 << 48) - 1:012x}7{random >> 68 & 0xFFF:03x}{0x8 | random >> 62 & 0x3:x}{random & (1 << 60) - 1:015x}"
    )


def audit_id(reservation: str) -> str:
    """Return the id that people quote for a reservation."""
    return f"pva_{reservation}"


@dataclass(slots=True)
class Chain:
    """The sender's end of its own chain: which event comes next in this epoch."""

    host: str
    epoch: str
    seq: int = 0
    head: str = FIRST

    def seal(self, fields: Fields) -> bytes:
        """Return ``fields`` as the next event's bytes. The chain moves only by :meth:`accept`."""
        return canonical({**fields, "v": 1, "host": self.host, "epoch": self.epoch, "seq": self.seq + 1, "prev": self.head})

    def accept(self, body: bytes) -> None:
        """Take a sealed event as sent: the next one links to it."""
        self.seq += 1
        self.head = digest(body)
