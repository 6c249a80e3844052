"""Migrating a log that has rows: only after a backup of it was taken, brought back elsewhere, and found whole there."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.backup import take
from prism_vault_agent.central.check import check
from prism_vault_agent.central.contents import compare, tables
from prism_vault_agent.central.log.proofs import origin_of
from prism_vault_agent.central.restore import restore
from prism_vault_agent.central.signing import signer
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import migrate, reading_engine, revision, upgrade_to, writing_engine
from prism_vault_agent.central.storage.postgres import is_postgres
from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from prism_vault_agent.central.backup import Say
    from prism_vault_agent.central.config import CentralConfig
    from prism_vault_agent.proof.keys import VerifyingKey

SCRATCH: Final = "prism_vault_migration_check"


def migrate_checked(config: CentralConfig, backup: Path | None, say: Say) -> tuple[str | None, str]:
    """Bring the database to this version's schema; return the revisions before and after. ``say`` is told of each step.

    Where there are events, nothing is written until it is done, and nothing is changed unless a backup (``backup``, beside a
    database file by default) was restored to a scratch database and found whole. Raises what was wrong, and then the database
    is as it was.
    """
    database = config.database
    if not _has_events(config):
        return migrate(database, config.database_owner)
    engine = writing_engine(config.database_owner or database)
    try:
        before = revision(engine)
        assert before is not None
        with engine.begin() as connection:
            _lock(connection)
            target = backup or _beside(database)
            say(f"1/4 backing up to {target}")
            take(database, target, say)
            key = verifying_key(config)
            say("2/4 restoring the backup to a scratch database")
            with _scratch(config, target, say) as scratch:
                say("3/4 checking what was restored")
                with _opened(database) as live, _opened(scratch) as restored:
                    compare(live, restored, "the database and its backup")
                check(scratch, key, say)
            say(f"4/4 migrating from {before} to {schema.REVISION}")
            upgrade_to(engine, database, schema.REVISION, connection)
    except (SQLAlchemyError, psycopg.Error) as error:
        mend = "nothing was changed; see the database's log, and database_owner"
        raise ConfigError(f"the database cannot be migrated ({type(error).__name__})", mend=mend) from None
    finally:
        engine.dispose()
    return before, schema.REVISION


def verifying_key(config: CentralConfig) -> VerifyingKey | None:
    """Return the key that the newest checkpoint must be signed with, or None where there is none yet."""
    engine = reading_engine(config.database)
    try:
        with engine.connect() as connection:
            if not engine.dialect.has_table(connection, "checkpoint"):
                return None
        origin = origin_of(engine)
        return None if origin is None else signer(config, origin).verifying_key
    finally:
        engine.dispose()


def _has_events(config: CentralConfig) -> bool:
    """Tell whether a migration is due on a database that has events."""
    if not is_postgres(config.database) and not Path(config.database).exists():
        return False
    engine = reading_engine(config.database_owner or config.database)
    try:
        if revision(engine) in (None, schema.REVISION):
            return False
        with engine.connect() as connection:
            return connection.execute(text("SELECT 1 FROM event LIMIT 1")).first() is not None
    except SQLAlchemyError as error:
        raise ConfigError(f"the database cannot be read ({type(error).__name__})", mend="see its state") from None
    finally:
        engine.dispose()


def _lock(connection: Connection) -> None:
    """Let nobody write until the transaction ends. A SQLite transaction of a writer's has the lock already."""
    if connection.dialect.name != "sqlite":
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {setting} = 0")
        there = ", ".join(table.name for table in tables(connection))
        connection.exec_driver_sql(f"LOCK TABLE {there} IN SHARE ROW EXCLUSIVE MODE")


def _beside(database: str) -> Path:
    if is_postgres(database):
        raise ConfigError(
            "a backup is taken before a database with events is migrated", mend="say where: central migrate --backup FILE"
        )
    path = Path(database)
    return path.with_name(f"{path.name}.before-{schema.REVISION}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")


@contextlib.contextmanager
def _scratch(config: CentralConfig, backup: Path, say: Say) -> Iterator[str]:
    """Restore a backup to a database of its own, and yield where it is; it is gone afterwards."""
    if is_postgres(config.database):
        with _scratch_server(config) as (service, owner):
            restore(backup, service, owner, say)
            yield owner
    else:
        path = backup.with_name(f"{backup.name}.check")
        try:
            path.unlink(missing_ok=True)
            restore(backup, str(path), "", say)
            yield str(path)
        finally:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(database: str) -> Iterator[Engine]:
    engine = reading_engine(database)
    try:
        yield engine
    finally:
        engine.dispose()


@contextlib.contextmanager
def _scratch_server(config: CentralConfig) -> Iterator[tuple[str, str]]:
    """Make an empty database on the same server, and drop it; one that an earlier run left is dropped first."""
    owner = config.database_owner or config.database
    engine = writing_engine(owner).execution_options(isolation_level="AUTOCOMMIT")
    drop = f"DROP DATABASE IF EXISTS {SCRATCH} WITH (FORCE)"
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql(drop)
            connection.exec_driver_sql(f"CREATE DATABASE {SCRATCH} TEMPLATE template0 ENCODING 'UTF8'")
            try:
                yield _in(config.database), _in(owner)
            finally:
                connection.exec_driver_sql(drop)
    finally:
        engine.dispose()


def _in(url: str) -> str:
    """Return the URL of the scratch database for the same role and server."""
    place, mark, options = url.partition("?")
    return f"{place.rpartition('/')[0]}/{SCRATCH}{mark}{options}"
