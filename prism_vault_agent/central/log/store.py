"""The writing side of the event table: one connection, one transaction at a time, and what is known of the chains' heads."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.audit.event import FIRST, Chain, Fields, digest, new_id
from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.log.incoming import Event, read
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.schema import Found

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Dialect, Engine
    from sqlalchemy.engine.interfaces import DBAPICursor


MOST_HEADS: Final = 10_000
Head = tuple[int, str]
NO_HEAD: Final[Head] = (0, FIRST)


class StorageError(Exception):
    """The database did not take the transaction, or did not say that it took it. Nothing of it may be acknowledged."""


class Statements:
    """What a transaction runs, compiled for one database."""

    def __init__(self, dialect: Dialect) -> None:
        """Compile for ``dialect``."""
        self.insert = schema.Prepared(schema.INSERT, dialect)
        self.by_event_id = schema.Prepared(schema.BY_EVENT_ID, dialect)
        self.of_reservation = schema.Prepared(schema.OF_RESERVATION, dialect)
        self.head = schema.Prepared(schema.HEAD, dialect)


@dataclass(slots=True)
class Transaction:
    """What one transaction sees and does.

    ``careful`` means that nothing is taken from memory: every rule is checked against the rows. Without it, an event
    that continues a known chain is inserted without a look for its id, because the unique index would refuse it.
    """

    cursor: DBAPICursor
    statements: Statements
    known: OrderedDict[tuple[str, str], Head]
    own: Chain
    now: int
    careful: bool
    moved: dict[tuple[str, str], Head] = field(default_factory=dict)

    def head(self, host: str, epoch: str, *, fresh: bool = False) -> Head:
        """Return the last sequence number and hash of a chain; ``fresh`` reads it again from the rows."""
        key = (host, epoch)
        if key in self.moved:
            return self.moved[key]
        if key in self.known and not (fresh or self.careful):
            return self.known[key]
        rows = self.statements.head.run(self.cursor, {"host_id": host, "host_epoch": bytes.fromhex(epoch)})
        found = (rows[0][0], digest(rows[0][1])) if rows else NO_HEAD
        self.moved[key] = found
        return found

    def by_event_id(self, event_id: str) -> Found | None:
        """Return the row of an event, where it is on the log."""
        rows = self.statements.by_event_id.run(self.cursor, {"event_id": bytes.fromhex(event_id)})
        return Found(*rows[0]) if rows else None

    def of_reservation(self, reservation: str) -> Sequence[Found]:
        """Return the rows of a reservation in the order of their arrival."""
        rows = self.statements.of_reservation.run(self.cursor, {"reservation_id": bytes.fromhex(reservation)})
        return [Found(*row) for row in rows]

    def insert(self, event: Event) -> int:
        """Insert a checked event that continues its chain, and return its index."""
        row = {
            "event_id": bytes.fromhex(event.event_id),
            "host_id": event.host,
            "host_epoch": bytes.fromhex(event.epoch),
            "host_seq": event.seq,
            "prev_hash": bytes.fromhex(event.prev),
            "reservation_id": bytes.fromhex(event.reservation),
            "kind": event.kind,
            "received_at": self.now,
            "body": event.body,
        }
        n = int(self.statements.insert.run(self.cursor, row)[0][0])
        self.moved[event.host, event.epoch] = (event.seq, event.hash)
        return n

    def insert_own(self, fields: Fields) -> int:
        """Insert an event that central itself makes, at the end of its own chain, and return its index."""
        common = {
            "event_id": new_id(),
            "at": self.now,
            "boot_ms": time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
        }
        body = self.own.seal({**fields, **common})
        n = self.insert(read(body))
        self.own.accept(body)
        return n


class Store:
    """The writer's state between transactions. Not for use by two threads at once."""

    def __init__(self, engine: Engine) -> None:
        """Write through ``engine``, whose transactions take the write lock when they begin."""
        self._engine = engine
        self._connection: Connection | None = None
        self._statements = Statements(engine.dialect)
        driver = engine.dialect.loaded_dbapi
        self._conflict: type[Exception] = driver.IntegrityError
        self._error: type[Exception] = driver.Error
        self._known: OrderedDict[tuple[str, str], Head] = OrderedDict()
        self._own = Chain(OWN_HOST, new_id())

    def run(self, works: Sequence[Callable[[Transaction], object]]) -> list[object]:
        """Do all works in one durable transaction and return their results.

        A work may run twice, so it has no effect but through the transaction. Raises :class:`StorageError` where the
        outcome is a failure or unknown; then everything that was remembered is read again from the rows.
        """
        try:
            try:
                return self._run(works, careful=False)
            except self._conflict:
                # Another writer of the same database was there, or an event id was used twice: look at the rows.
                self._forget()
                return self._run(works, careful=True)
        except (SQLAlchemyError, self._error) as error:
            self.close()
            raise StorageError(type(error).__name__) from error

    def probe(self) -> None:
        """Raise :class:`StorageError` unless a transaction can be written durably."""
        try:
            connection = self._open()
            with connection.begin():
                connection.exec_driver_sql("PRAGMA user_version = 1")
        except (SQLAlchemyError, self._error) as error:
            self.close()
            raise StorageError(type(error).__name__) from error

    def close(self) -> None:
        """Close the connection and forget; the next use opens it again."""
        self._forget()
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
        self._engine.dispose()

    def _open(self) -> Connection:
        """Return the connection, which is kept between transactions."""
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _run(self, works: Sequence[Callable[[Transaction], object]], *, careful: bool) -> list[object]:
        connection = self._open()
        with connection.begin():
            own = Chain(self._own.host, self._own.epoch, self._own.seq, self._own.head)
            cursor = connection.connection.cursor()
            transaction = Transaction(cursor, self._statements, self._known, own, time.time_ns() // 1_000_000, careful)
            results = [work(transaction) for work in works]
        self._own = own
        for key, head in transaction.moved.items():
            self._known[key] = head
            self._known.move_to_end(key)
        while len(self._known) > MOST_HEADS:
            self._known.popitem(last=False)
        return results

    def _forget(self) -> None:
        """Drop what was remembered: it may be ahead of the rows or behind them. Central's own chain starts a new epoch."""
        self._known.clear()
        self._own = Chain(OWN_HOST, new_id())
