"""Opening the database: whose file it is, which settings every connection gets, and whether its schema is this version's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from prism_vault_agent.central.config import check_ours
from prism_vault_agent.central.storage.schema import REVISION
from prism_vault_agent.errors import CannotCreate, ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

OTHERS: Final = 0o077
BUSY_MS: Final = 2_000
READERS: Final = 4

_EVERY_CONNECTION: Final = (
    f"PRAGMA busy_timeout = {BUSY_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA recursive_triggers = ON",
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


def reading_engine(path: Path) -> Engine:
    """Return an engine whose connections cannot write."""
    return _engine(path, "PRAGMA query_only = ON", size=READERS)


def revision(engine: Engine) -> str | None:
    """Return which migration the database is at, or None for an empty one."""
    with engine.connect() as connection:
        if not engine.dialect.has_table(connection, "alembic_version"):
            return None
        found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return found


def require_current(engine: Engine, config_path: Path) -> None:
    """Raise :class:`ConfigError` that names the command, unless the database has this version's schema."""
    try:
        found = revision(engine)
    except SQLAlchemyError as error:
        raise ConfigError(f"the database {engine.url.database} cannot be read: {type(error).__name__}") from None
    if found != REVISION:
        state = "has no tables yet" if found is None else f"is at revision {found}, not {REVISION}"
        raise ConfigError(
            f"the database {engine.url.database} {state}",
            mend=f"run prism-vault central migrate --config {config_path}",
        )


def migrate(path: Path) -> tuple[str | None, str]:
    """Bring the database to this version's schema, in one transaction; return the revisions before and after."""
    prepare(path)
    engine = writing_engine(path)
    try:
        before = revision(engine)
        if before == REVISION:
            return before, REVISION
        from alembic import command  # noqa: PLC0415 - half a second of imports that serving does without
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return before, REVISION
    finally:
        engine.dispose()


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
