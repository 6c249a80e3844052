"""Opening the log's database, whichever kind it is, and whether its schema is this version's."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.storage import postgres, sqlite
from prism_vault_agent.central.storage.postgres import is_postgres
from prism_vault_agent.central.storage.schema import REVISION
from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from prism_vault_agent.central.storage.writing import Writing

READERS: Final = 4


def writing_engine(database: str) -> Engine:
    """Return an engine of one connection for transactions that write."""
    return postgres.writing_engine(database) if is_postgres(database) else sqlite.writing_engine(Path(database))


def reading_engine(database: str, size: int = READERS) -> Engine:
    """Return an engine of up to ``size`` connections, which cannot write."""
    return postgres.reading_engine(database, size) if is_postgres(database) else sqlite.reading_engine(Path(database), size)


def writing(engine: Engine) -> Writing:
    """Return what a writer through ``engine`` does."""
    return sqlite.SqliteWriting() if engine.dialect.name == "sqlite" else postgres.PostgresWriting()


def prepare(database: str) -> None:
    """Make a database file where there is none; check that it is ours, or that a server keeps what it acknowledges."""
    if is_postgres(database):
        postgres.service_role(database)
        engine = reading_engine(database)
        try:
            postgres.require_durable(engine)
        finally:
            engine.dispose()
    else:
        sqlite.prepare(Path(database))


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


def migrate(database: str, owner: str = "") -> tuple[str | None, str]:
    """Bring the database to this version's schema, in one transaction; return the revisions before and after.

    ``owner`` is the URL of a PostgreSQL role that may make roles and tables; the service's own role may not.
    """
    if not is_postgres(database):
        sqlite.prepare(Path(database))
    engine = writing_engine(owner or database)
    try:
        before = revision(engine)
        if before != REVISION:
            upgrade_to(engine, database, REVISION)
    except SQLAlchemyError as error:
        mend = "give the URL of a role that may: database_owner" if is_postgres(database) else "stop central, and see its disk"
        raise ConfigError(f"the database cannot be migrated ({type(error).__name__})", mend=mend) from None
    finally:
        engine.dispose()
    return before, REVISION


def upgrade_to(engine: Engine, database: str, version: str, connection: Connection | None = None) -> None:
    """Bring a database up to the schema ``version``, in one transaction: that of ``connection``, or one of its own."""
    from alembic import command  # noqa: PLC0415 - half a second of imports that serving does without
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with contextlib.nullcontext(connection) if connection is not None else engine.begin() as used:
        if is_postgres(database):
            postgres.prepare(used, postgres.service_role(database))
        config.attributes["connection"] = used
        command.upgrade(config, version)
        if is_postgres(database):
            postgres.grant(used, postgres.service_role(database))
