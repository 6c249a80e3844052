"""A backup of the log: one SQLite file with its tables, whichever kind of database it comes from, taken while central serves."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.contents import tables
from prism_vault_agent.central.storage.engines import reading_engine, revision, upgrade_to, writing_engine
from prism_vault_agent.central.storage.postgres import is_postgres
from prism_vault_agent.errors import CannotCreate, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine, Table

    Say = Callable[[str], None]

PAGES_AT_ONCE: Final = 1_000
ROWS_AT_ONCE: Final = 5_000
# One snapshot however long it takes, of whatever the tables hold when it begins.
_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_NO_HURRY: Final = ("SET statement_timeout = 0", "SET idle_in_transaction_session_timeout = 0")


def take(database: str, target: Path, say: Say) -> dict[str, int]:
    """Write a backup of ``database`` to the new file ``target`` (0600, durable), and return how many rows each table has.

    Raises :class:`CannotCreate` where it cannot be written, and then leaves nothing of it; :class:`ConfigError` for a database
    that cannot be read.
    """
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise CannotCreate(f"the backup {target} cannot be written: {error.strerror}") from None
    try:
        rows = _of_server(database, target, say) if is_postgres(database) else _of_file(Path(database), target, say)
        _make_durable(target)
    except (OSError, sqlite3.Error, SQLAlchemyError, psycopg.Error) as error:
        _remove(target)
        told = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise CannotCreate(f"the backup {target} cannot be written ({told})", mend="see the disk and the database") from None
    except BaseException:
        _remove(target)
        raise
    return rows


def counts(engine: Engine) -> dict[str, int]:
    """Return how many rows each table has."""
    with engine.connect() as connection:
        return {table.name: _count(connection, table) for table in tables(connection)}


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(text(f"SELECT count(*) FROM {table.name}")).scalar() or 0)  # noqa: S608 - a name of ours


def _of_file(source: Path, target: Path, say: Say) -> dict[str, int]:
    """Copy the pages in one snapshot, which writers do not wait for and do not disturb."""
    if not source.is_file():
        raise ConfigError(f"there is no database {source}")
    reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    writing = sqlite3.connect(target, isolation_level=None)
    try:
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot is taken by the first look
        reading.backup(writing, pages=PAGES_AT_ONCE, progress=lambda _, left, of: say(f"backing up: {of - left} of {of} pages"))
        writing.execute("PRAGMA journal_mode = DELETE")
    finally:
        writing.close()
        reading.close()
    return _counts_of(target)


def _of_server(database: str, target: Path, say: Say) -> dict[str, int]:
    """Copy the rows of every table, in one snapshot, into tables of the same schema version."""
    engine = reading_engine(database)
    made = writing_engine(str(target))
    try:
        found = revision(engine)
        if found is None:
            raise ConfigError("the database has no tables yet", mend="there is nothing to back up")
        upgrade_to(made, str(target), found)
        with engine.connect() as source, made.connect() as copy:
            for statement in (_SNAPSHOT, *_NO_HURRY):
                source.exec_driver_sql(statement)
            raw: Any = copy.connection.driver_connection
            for trigger in raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall():
                raw.execute(f"DROP TRIGGER {trigger[0]}")  # a copy of guarded rows; they are back before anybody uses it
                raw.execute("CREATE TEMP TABLE IF NOT EXISTS guard (sql TEXT)")
                raw.execute("INSERT INTO guard VALUES (?)", [trigger[1]])
            raw.execute("PRAGMA synchronous = OFF")  # it is made durable as a whole
            raw.execute("BEGIN")
            for table in tables(source):
                _copy(source, raw, table, say)
            for (sql,) in raw.execute("SELECT sql FROM guard").fetchall():
                raw.execute(sql)
            raw.execute("COMMIT")
            raw.execute("PRAGMA journal_mode = DELETE")
    finally:
        engine.dispose()
        made.dispose()
    return _counts_of(target)


def _copy(source: Connection, raw: Any, table: Table, say: Say) -> None:
    total, done = _count(source, table), 0
    marks = ", ".join("?" * len(table.columns))
    rows = source.execution_options(yield_per=ROWS_AT_ONCE).execute(select(*table.columns))
    for some in rows.partitions():
        raw.executemany(f"INSERT INTO {table.name} VALUES ({marks})", [tuple(row) for row in some])  # noqa: S608 - a name of ours
        done += len(some)
        say(f"backing up {table.name}: {done} of {total} rows")
    if done != total:
        raise ConfigError(f"{done} of {total} rows of {table.name} could be read", mend="see the database's log")


def _counts_of(target: Path) -> dict[str, int]:
    engine = reading_engine(str(target))
    try:
        return counts(engine)
    finally:
        engine.dispose()


def _make_durable(target: Path) -> None:
    for path, flags in ((target, os.O_RDONLY), (target.parent, os.O_RDONLY | os.O_DIRECTORY)):
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(target: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
