"""The writing side of the event table: one connection, one transaction at a time, and what is known of the chains' heads."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from prism_vault_agent.audit.event import FIRST, Chain, Fields, digest, new_id
from prism_vault_agent.central import schema
from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.incoming import Event, read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine, Row

MOST_HEADS: Final = 10_000
Head = tuple[int, str]
NO_HEAD: Final[Head] = (0, FIRST)


class StorageError(Exception):
    """The database did not take the transaction, or did not say that it took it. Nothing of it may be acknowledged."""


@dataclass(slots=True)
class Transaction:
    """What one transaction sees and does.

    ``careful`` means that nothing is taken from memory: every rule is checked against the rows. Without it, an event
    that continues a known chain is inserted without a look for its id, because the unique index would refuse it.
    """

    connection: Connection
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
        row = self.connection.execute(schema.HEAD, {"host": host, "epoch": bytes.fromhex(epoch)}).first()
        found = (row.host_seq, digest(row.body)) if row else NO_HEAD
        self.moved[key] = found
        return found

    def by_event_id(self, event_id: str) -> Row[Any] | None:
        """Return the row of an event, where it is on the log."""
        return self.connection.execute(schema.BY_EVENT_ID, {"event_id": bytes.fromhex(event_id)}).first()

    def of_reservation(self, reservation: str) -> Sequence[Row[Any]]:
        """Return the rows of a reservation in the order of their arrival."""
        return self.connection.execute(schema.OF_RESERVATION, {"reservation_id": bytes.fromhex(reservation)}).all()

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
        key = self.connection.execute(schema.INSERT, row).inserted_primary_key
        assert key is not None
        self.moved[event.host, event.epoch] = (event.seq, event.hash)
        return int(key[0])

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
            except IntegrityError:
                # Another writer of the same database was there, or an event id was used twice: look at the rows.
                self._forget()
                return self._run(works, careful=True)
        except SQLAlchemyError as error:
            self._forget()
            self._engine.dispose()
            raise StorageError(type(error).__name__) from error

    def probe(self) -> None:
        """Raise :class:`StorageError` unless a transaction can be written durably."""
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql("PRAGMA user_version = 1")
        except SQLAlchemyError as error:
            self._forget()
            self._engine.dispose()
            raise StorageError(type(error).__name__) from error

    def close(self) -> None:
        """Close the connection; the database's own log is folded into its file."""
        self._engine.dispose()

    def _run(self, works: Sequence[Callable[[Transaction], object]], *, careful: bool) -> list[object]:
        with self._engine.begin() as connection:
            own = Chain(self._own.host, self._own.epoch, self._own.seq, self._own.head)
            transaction = Transaction(connection, self._known, own, time.time_ns() // 1_000_000, careful)
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
