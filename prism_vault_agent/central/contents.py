"""What the tables of a log hold, as one hash for each: the same for the same rows, whichever kind of database they are in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Text, inspect, select

from prism_vault_agent.central.storage import schema
from prism_vault_agent.errors import IntegrityError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

ROWS_AT_ONCE: Final = 5_000
MEND: Final = "keep both as they are, and see their disks"


class Content(NamedTuple):
    """How many rows a table has, and the SHA-256 (hex) of all their values, in the order of its primary key."""

    rows: int
    digest: str


def tables(connection: Connection) -> list[Table]:
    """Return the tables that the database has: an older one has fewer."""
    there = inspect(connection).get_table_names()
    return [table for table in schema.metadata.sorted_tables if table.name in there]


def contents(engine: Engine) -> dict[str, Content]:
    """Return what each table holds, read in one go each: nobody may write meanwhile."""
    with engine.connect() as connection:
        return {table.name: _content(connection, table) for table in tables(connection)}


def compare(one: Engine, other: Engine, what: str) -> None:
    """Raise :class:`IntegrityError` that names the first table which does not hold the same in both; ``what`` are they."""
    first, second = contents(one), contents(other)
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            counts = " and ".join(str(each[name].rows if name in each else 0) for each in (first, second))
            raise IntegrityError(f"{what}: the table {name} does not hold the same in both ({counts} rows)", mend=MEND)


def _content(connection: Connection, table: Table) -> Content:
    hashed, count = hashlib.sha256(), 0
    # Text is ordered by its bytes, as SQLite does: a server's own order is that of its locale.
    by_bytes = connection.dialect.name != "sqlite"
    key = [column.collate("C") if by_bytes and isinstance(column.type, Text) else column for column in table.primary_key]
    for some in connection.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table).order_by(*key)).partitions():
        for row in some:
            hashed.update(b"".join(map(_bytes, row)))
        count += len(some)
    return Content(count, hashed.hexdigest())


def _bytes(value: Any) -> bytes:
    """Return a value as bytes that no other value, and no two in a row, have: its kind, its length, and itself."""
    if isinstance(value, int):
        kind, content = b"i", str(value).encode()
    elif isinstance(value, str):
        kind, content = b"t", value.encode("utf-8", "surrogatepass")
    elif value is None:
        kind, content = b"n", b""
    else:
        kind, content = b"b", bytes(value)
    return b"%b%d:%b" % (kind, len(content), content)
