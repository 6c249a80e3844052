"""What stays of rows whose bodies were dropped, as one hash, which the event that drops them states. Pure.

The columns of a row repeat fields of its body. Without the body nothing would bind them, so that event does: its field
``remains`` is the SHA-256 of these lines, one for each row, in the order of their leaves, each ended by a newline::

    <n> <received_at> <event_id> <host_id> <host_epoch> <host_seq> <prev_hash> <reservation_id> <kind> <hash of the body>

Ids and hashes are in hex. The event itself is a leaf of the log as any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple


class Remains(NamedTuple):
    """The columns of a row without its body, ids and hashes in hex; ``hash`` is the SHA-256 of the body that was there."""

    n: int
    received_at: int
    event_id: str
    host_id: str
    host_epoch: str
    host_seq: int
    prev_hash: str
    reservation_id: str
    kind: str
    hash: str


def remains(rows: Iterable[Remains]) -> str:
    """Return the hash (hex) over rows in the order of their leaves."""
    return hashlib.sha256(b"".join(map(remains_line, rows))).hexdigest()


def remains_line(row: Remains) -> bytes:
    """Return the line of one row."""
    return f"{' '.join(map(str, row))}\n".encode("utf-8", "surrogateescape")
