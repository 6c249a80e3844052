"""The writing side of the log: one connection, one transaction at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.audit.event import Chain, new_id
from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.log.holding import Settled
from prism_vault_agent.central.log.transaction import Memory, Transaction
from prism_vault_agent.central.storage.engines import writing
from prism_vault_agent.central.storage.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection, Engine

    Work = Callable[[Transaction], object]

# How often the same works are tried against the rows before the callers are asked to come again.
ATTEMPTS: Final = 4


class StorageError(Exception):
    """The database did not take the transaction, or did not say that it took it. Nothing of it may be acknowledged."""


class Store:
    """The writer's connection, and what it remembers between transactions. Not for use by two threads at once."""

    def __init__(self, engine: Engine) -> None:
        """Write through ``engine``, which has one connection."""
        self._engine = engine
        self._connection: Connection | None = None
        self._writing = writing(engine)
        self._statements = Statements(engine.dialect)
        self._error: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._memory = Memory()
        self._settled = Settled()
        self._own = Chain(OWN_HOST, new_id())
        self.appended = False
        self.told: frozenset[str] = frozenset()

    def run(self, works: Sequence[Work], reservations: Iterable[str] = ()) -> list[object]:
        """Do all works in one durable transaction and return their results; ``reservations`` are those that they will look at.

        A work may run more than once, so it has no effect but through the transaction. Raises :class:`StorageError` where the
        outcome is a failure or unknown; then everything that was remembered is read again from the rows.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._run(works, reservations, careful=attempt > 0)
            except (SQLAlchemyError, self._error) as error:
                # Another writer of the same database was there, or an event id was used twice: look at the rows.
                if attempt + 1 < ATTEMPTS and self._writing.again(error):
                    self._forget()
                    continue
                self.close()
                raise StorageError(type(error).__name__) from error
        raise AssertionError("the last attempt returns or raises")

    def probe(self) -> None:
        """Raise :class:`StorageError` unless a transaction can be written durably."""
        try:
            connection = self._open()
            with connection.begin():
                self._writing.probe(connection)
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

    def _run(self, works: Sequence[Work], reservations: Iterable[str], *, careful: bool) -> list[object]:
        connection = self._open()
        with connection.begin():
            transaction = Transaction(
                connection.connection.cursor(),
                self._writing,
                self._statements,
                None if careful else self._memory,
                own=Chain(self._own.host, self._own.epoch, self._own.seq, self._own.head),
                expected=len(works),
                settled=self._settled(),
            )
            transaction.fetch(reservations)
            results = [work(transaction) for work in works]
            transaction.flush()
        self._own = transaction.own
        self.appended = transaction.appended
        self.told = frozenset(transaction.told)
        self._memory.learn(transaction)
        return results

    def _forget(self) -> None:
        """Drop what was remembered: it may be ahead of the rows or behind them. Central's own chain starts a new epoch."""
        self._memory = Memory()
        self._own = Chain(OWN_HOST, new_id())
