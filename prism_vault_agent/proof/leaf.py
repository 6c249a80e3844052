"""What a leaf of the log is the hash of. Pure."""

from __future__ import annotations

import struct


def leaf_data(n: int, received_at: int, body: bytes) -> bytes:
    """Return the data of one row's leaf: its number, the time of its arrival, and the event's bytes as they came.

    The number and the time (milliseconds since 1970 UTC) are unsigned, big endian, 8 bytes each. With them inside, no
    column of a row can be changed unseen. Raises ``struct.error`` for a number that 8 bytes cannot hold.
    """
    return struct.pack(">QQ", n, received_at) + body
