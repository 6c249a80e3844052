"""The stored hashes of the log's tree: leaves, and the roots of tiles (``proof/tiles.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPICursor

    from prism_vault_agent.proof.tiles import Range


def fetch(cursor: DBAPICursor, ranges: list[Range]) -> list[list[bytes]]:
    """Return the stored hashes of each range, in order. Fewer where some are missing. Raises the driver's errors."""
    found: list[list[bytes]] = []
    for level, start, length in ranges:
        where = f"level = {level:d} AND " if level else ""
        cursor.execute(
            f"SELECT hash FROM {'node' if level else 'leaf'} "  # noqa: S608 - names and numbers of ours
            f"WHERE {where}idx >= {start:d} AND idx < {start + length:d} ORDER BY idx"
        )
        found.append([bytes(row[0]) for row in cursor.fetchall()])
    return found
