"""What a database of central's holds, as verification reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prism_vault_agent.central.verification.databases import open_database
from prism_vault_agent.central.verification.row import Row
from prism_vault_agent.central.verification.verify import Verdict, verify

if TYPE_CHECKING:
    from pathlib import Path


class Stored(NamedTuple):
    """A row, its reservation in hex."""

    n: int
    kind: str
    reservation: str
    body: bytes


def verdict_of(database: Path | str) -> Verdict:
    """Return what verification says about a file, or about a database of PostgreSQL by its URL."""
    with open_database(str(database)) as log:
        return verify(log)


def stored(database: Path | str) -> list[Stored]:
    """Return every row."""
    with open_database(str(database)) as log:
        rows = [Row(*row) for part in log.parts() for row in log.rows(part)]
    return sorted(Stored(row.n, row.kind.decode(), row.reservation_id.hex(), row.body) for row in rows)
