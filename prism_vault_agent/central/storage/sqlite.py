"""SQLite as the log's database: whose file it is, which settings every connection gets, and what its writer does."""

from __future__ import annotations

import itertools
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, event
from sqlalchemy.pool import QueuePool

from prism_vault_agent.central.config import check_ours
from prism_vault_agent.central.storage.statements import OF_RESERVATIONS, RENEW, UNSEQUENCED, Found
from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine, Table
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
    from sqlalchemy.pool import ConnectionPoolEntry

OTHERS: Final = 0o077
BUSY_MS: Final = 2_000
MOST_MARKS: Final = 500

_EVERY_CONNECTION: Final = (
    f"PRAGMA busy_timeout = {BUSY_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA secure_delete = ON",  # a body that was dropped is overwritten, not only unlinked
    "PRAGMA trusted_schema = OFF",
    "PRAGMA foreign_keys = ON",
)


def prepare(path: Path) -> None:
    """Make the database's directory (0700) and file (0600). Raises :class:`ConfigError` where they are wider or not ours."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_ours(path.parent, path.parent.stat(), forbidden=OTHERS)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        check_ours(path, path.stat(), forbidden=OTHERS)
    except OSError as error:
        raise CannotCreate(f"the database {path} cannot be opened: {error.strerror}") from None


def writing_engine(path: Path) -> Engine:
    """Return an engine whose transactions take the write lock when they begin."""
    engine = _engine(path, size=1)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def reading_engine(path: Path, size: int) -> Engine:
    """Return an engine of ``size`` connections that cannot write."""
    return _engine(path, "PRAGMA query_only = ON", size=size)


class SqliteWriting:
    """What the writer of a SQLite file does. There is one writer at a time, so numbers need no keeping and locks no taking."""

    def numbers(self, cursor: DBAPICursor, expected: int) -> Iterator[int]:  # noqa: ARG002 - all of them are ours
        """Return the indexes behind the last one."""
        cursor.execute("SELECT coalesce(max(n), 0) + 1 FROM event")
        return itertools.count(int(cursor.fetchall()[0][0]))

    def of_reservations(self, cursor: DBAPICursor, reservations: Sequence[bytes]) -> list[Found]:
        """Return the rows of these reservations."""
        found: list[Found] = []
        for start in range(0, len(reservations), MOST_MARKS):
            some = reservations[start : start + MOST_MARKS]
            cursor.execute(OF_RESERVATIONS.format(f"IN ({', '.join('?' * len(some))})"), some)
            found += map(Found._make, cursor.fetchall())
        return found

    def unsequenced(self, cursor: DBAPICursor, floor: int, most: int) -> list[tuple[int, bytes]]:
        """Return the next events without a leaf. SQLite has no SHA-256, so their bytes are hashed here."""
        cursor.execute(UNSEQUENCED.format("n, received_at, body", "?", "?"), (floor, most))
        return [(n, leaf_hash(leaf_data(n, at, body))) for n, at, body in cursor.fetchall()]

    def insert(self, cursor: DBAPICursor, table: Table, rows: Sequence[Sequence[object]]) -> None:
        """Insert rows, each with all columns of ``table`` in their order. Raises the driver's errors."""
        marks = ", ".join("?" * len(table.columns))
        cursor.executemany(f"INSERT INTO {table.name} VALUES ({marks})", rows)  # noqa: S608 - a name of ours

    def drop(self, cursor: DBAPICursor, by_n: int, rows: Sequence[tuple[int, bytes]], terms: Sequence[tuple[int, int]]) -> None:
        """Empty the bodies and remove the terms, which the guards allow for rows that are in ``dropped``."""
        cursor.executemany("INSERT INTO dropped VALUES (?, ?, ?)", [(n, by_n, hashed) for n, hashed in rows])
        cursor.executemany("UPDATE event SET body = x'' WHERE n = ?", [(n,) for n, _ in rows])
        cursor.executemany("DELETE FROM term WHERE term = ? AND n = ?", terms)

    def highest(self, cursor: DBAPICursor) -> tuple[int, int]:
        """Return the highest ``n``."""
        cursor.execute("SELECT coalesce(max(n), 0) FROM event")
        return int(cursor.fetchall()[0][0]), 0

    def settled(self, cursor: DBAPICursor, mark: int) -> bool:  # noqa: ARG002 - nobody else writes while we do
        """Return True: nobody else writes while this transaction does."""
        return True

    def alone(self, cursor: DBAPICursor, what: int) -> bool:  # noqa: ARG002 - as above
        """Return True: nobody else writes while this transaction does."""
        return True

    def in_turn(self, cursor: DBAPICursor, what: int) -> None:
        """Do nothing: nobody else writes while this transaction does."""

    def renew(self, cursor: DBAPICursor, hosts: Sequence[str], epochs: Sequence[bytes], until: int) -> list[tuple[str, bytes]]:
        """Let names be kept until then."""
        marks = f"IN ({', '.join('?' * len(hosts))})", f"IN ({', '.join('?' * len(epochs))})"
        cursor.execute(RENEW.format(*marks, "?"), (until, *hosts, *epochs))
        return list(cursor.fetchall())

    def tell(self, cursor: DBAPICursor, channel: str) -> None:
        """Do nothing: no other replica uses the file."""

    def again(self, error: Exception) -> bool:
        """Tell whether an event id was used twice, or the file was written by another program."""
        return isinstance(error, sqlite3.IntegrityError)

    def probe(self, connection: Connection) -> None:
        """Write a number that means nothing to the file's header."""
        connection.exec_driver_sql("PRAGMA user_version = 1")


def _engine(path: Path, *more: str, size: int) -> Engine:
    engine = create_engine(
        f"sqlite+pysqlite:///{path}",
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # error texts would quote rows
        connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False},
    )

    def prepare_connection(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        cursor = connection.cursor()
        for pragma in (*_EVERY_CONNECTION, *more):
            cursor.execute(pragma)
        cursor.close()

    event.listen(engine, "connect", prepare_connection)
    return engine


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
