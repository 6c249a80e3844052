"""What a leaf of the log is the hash of. Pure."""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import Final

_HASHED: Final = struct.Struct(">xQQ")  # the byte before a leaf's data that RFC 6962 wants is 0


def leaf_data(n: int, received_at: int, body: bytes) -> bytes:
    """Return the data of one row's leaf: its number, the time of its arrival, and the event's bytes as they came.

    The number and the time (milliseconds since 1970 UTC) are unsigned, big endian, 8 bytes each. With them inside, no
    column of a row can be changed unseen. Raises ``struct.error`` for a number that 8 bytes cannot hold.
    """
    return struct.pack(">QQ", n, received_at) + body


def row_hash(n: int, received_at: int, body: bytes) -> bytes:
    """Return the hash of the leaf that holds one row's :func:`leaf_data`, in half of the time. Raises what that raises."""
    return sha256(_HASHED.pack(n, received_at) + body).digest()
