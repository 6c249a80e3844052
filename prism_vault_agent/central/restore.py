"""Brings a backup back: into a database file, or into a PostgreSQL database, of any cluster, that has no rows."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.contents import compare, tables
from prism_vault_agent.central.storage import sqlite
from prism_vault_agent.central.storage.engines import reading_engine, revision, upgrade_to, writing_engine
from prism_vault_agent.central.storage.postgres import is_postgres
from prism_vault_agent.errors import CannotCreate, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from prism_vault_agent.central.backup import Say

ROWS_AT_ONCE: Final = 5_000


def restore(backup: Path, database: str, owner: str, say: Say) -> None:
    """Bring ``backup`` back into ``database``, in one transaction. The schema's version is the backup's.

    Raises :class:`ConfigError` where there are rows already, :class:`CannotCreate` where it cannot be written,
    :class:`IntegrityError` where what was written is not what the backup holds.
    """
    if not backup.is_file():
        raise ConfigError(f"there is no backup {backup}")
    try:
        if is_postgres(database):
            _to_server(backup, database, owner, say)
        else:
            _to_file(backup, Path(database))
        say("comparing what was restored with the backup")
        restored = reading_engine(owner or database)
        try:
            with opened(backup) as source:
                compare(source, restored, "the backup and what was restored")
        finally:
            restored.dispose()
    except (OSError, sqlite3.Error, SQLAlchemyError, psycopg.Error) as error:
        raise CannotCreate(
            f"the backup cannot be restored ({type(error).__name__})", mend="see the disk and the database"
        ) from None


@contextlib.contextmanager
def opened(backup: Path) -> Iterator[Engine]:
    """Open a backup so that it cannot change: as it is, without any file beside it. Raises :class:`ConfigError` without one."""
    if not backup.is_file():
        raise ConfigError(f"there is no backup {backup}")
    engine = create_engine(f"sqlite+pysqlite:///{backup.absolute().as_uri()}?mode=ro&immutable=1&uri=true", hide_parameters=True)
    try:
        yield engine
    finally:
        engine.dispose()


def _to_file(backup: Path, database: Path) -> None:
    if database.exists() and database.stat().st_size:
        raise ConfigError(f"there is a database {database}", mend="move it away, with its -wal and -shm files")
    sqlite.prepare(database)
    source = sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    target = sqlite3.connect(database)
    try:
        source.backup(target)
    finally:
        target.close()
        source.close()
    descriptor = os.open(database, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _to_server(backup: Path, database: str, owner: str, say: Say) -> None:
    """Make the tables and fill them as their owner; afterwards the service has the rights that it always has."""
    engine = writing_engine(owner or database)
    try:
        if revision(engine) is not None:
            raise ConfigError("the database has tables already", mend="restore into an empty one: CREATE DATABASE")
        with opened(backup) as source, source.connect() as reading, engine.begin() as connection:
            raw: Any = connection.connection.cursor()
            for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
                raw.execute(f"SET LOCAL {setting} = 0")
            upgrade_to(engine, database, _version(reading, backup), connection)
            # What a row of `dropped` needs is there before it: its event, leaf and checkpoint.
            for table in sorted(tables(reading), key=lambda each: each.name == "dropped"):
                _fill(reading, raw, table, say)
            raw.execute("SELECT setval('event_n_seq', max(n)) FROM event HAVING max(n) IS NOT NULL")
    finally:
        engine.dispose()


def _version(reading: Connection, backup: Path) -> str:
    if not reading.dialect.has_table(reading, "alembic_version"):
        raise ConfigError(f"{backup} is not a backup of the log")
    return str(reading.execute(text("SELECT version_num FROM alembic_version")).scalar())


def _fill(reading: Connection, raw: Any, table: Any, say: Say) -> None:
    done = 0
    columns = ", ".join(column.name for column in table.columns)
    for some in reading.execution_options(yield_per=ROWS_AT_ONCE).execute(table.select()).partitions():
        with raw.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
            for row in some:
                copy.write_row(tuple(row))
        done += len(some)
        say(f"restoring {table.name}: {done} rows")
