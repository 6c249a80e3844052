"""The one table of the audit log, and the statements that work on it. Rows are inserted and read; nothing changes one.

The table is made by the migrations; what stands here must equal what they make (a test compares them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    insert,
    select,
    text,
)
from sqlalchemy.sql.compiler import SQLCompiler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ClauseElement, Dialect
    from sqlalchemy.engine.interfaces import DBAPICursor

REVISION: Final = "0001"
ENDINGS: Final = frozenset({"success", "denied", "failure", "abandoned"})

_Number: Final = BigInteger().with_variant(Integer(), "sqlite")

metadata: Final = MetaData()
event: Final = Table(
    "event",
    metadata,
    Column("n", _Number, primary_key=True),
    Column("event_id", LargeBinary, nullable=False, unique=True),
    Column("host_id", Text, nullable=False),
    Column("host_epoch", LargeBinary, nullable=False),
    Column("host_seq", _Number, nullable=False),
    Column("prev_hash", LargeBinary, nullable=False),
    Column("reservation_id", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    Column("received_at", _Number, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("host_id", "host_epoch", "host_seq", name="one_place"),
    sqlite_strict=True,
)
_OPENED: Final = text("kind = 'reserved'")
_ENDED: Final = text("kind IN ('success', 'denied', 'failure', 'abandoned')")
Index("one_open", event.c.reservation_id, unique=True, sqlite_where=_OPENED, postgresql_where=_OPENED)
Index("one_final", event.c.reservation_id, unique=True, sqlite_where=_ENDED, postgresql_where=_ENDED)
Index("of_reservation", event.c.reservation_id)

_FOUND: Final = (event.c.n, event.c.event_id, event.c.host_id, event.c.kind, event.c.body)

_GIVEN: Final[dict[str, BindParameter[Any]]] = {
    column.name: bindparam(column.name) for column in event.c if column is not event.c.n
}

INSERT: Final = insert(event).values(_GIVEN).returning(event.c.n)
BY_EVENT_ID: Final = select(*_FOUND).where(event.c.event_id == bindparam("event_id"))
OF_RESERVATION: Final = select(*_FOUND).where(event.c.reservation_id == bindparam("reservation_id")).order_by(event.c.n)
HEAD: Final = (
    select(event.c.host_seq, event.c.body)
    .where(event.c.host_id == bindparam("host_id"), event.c.host_epoch == bindparam("host_epoch"))
    .order_by(event.c.host_seq.desc())
    .limit(1)
)
# Epochs are UUIDs of version 7, so the greatest one is the newest.
NEWEST_HEAD: Final = (
    select(event.c.host_epoch, event.c.host_seq, event.c.body)
    .where(event.c.host_id == bindparam("host_id"))
    .order_by(event.c.host_epoch.desc(), event.c.host_seq.desc())
    .limit(1)
)


class Found(NamedTuple):
    """What the writer looks at in a row."""

    n: int
    event_id: bytes
    host_id: str
    kind: str
    body: bytes


class Prepared:
    """A statement as text for one database, compiled once: the writer runs four of them for each event."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        """Compile ``statement`` for ``dialect``, whose parameters are positional."""
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        assert compiled.positiontup is not None
        self._text = str(compiled)
        self._names = tuple(compiled.positiontup)
        self._constants = compiled.params

    def run(self, cursor: DBAPICursor, values: Mapping[str, object]) -> list[Any]:
        """Run it and return all rows. Raises the driver's own errors."""
        cursor.execute(self._text, [values[name] if name in values else self._constants[name] for name in self._names])
        return list(cursor.fetchall())
