"""A log in a database of central's, opened so that it cannot change: a file, be it a copy or in use, or PostgreSQL."""

from __future__ import annotations

import functools
import re
import sqlite3
import urllib.parse
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.central.config import POSTGRESQL
from prism_vault_agent.central.verification.database import Damaged, Database
from prism_vault_agent.errors import AuditUnavailable, ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_GUARD: Final = re.compile(r"BEFORE (UPDATE|DELETE|INSERT) ON (\w+)")
# Tables that are no part of the log, and change.
_BESIDE_THE_LOG: Final = ("alembic_version", "presence")
_EVERY_STATEMENT: Final = (
    "-c default_transaction_read_only=on -c statement_timeout=10min -c search_path=public -c client_encoding=UTF8"
)


def open_database(where: str, *, unproved: bool = False) -> Database:
    """Open the log in the PostgreSQL database or file that ``where`` names. Raises as the classes below do.

    With ``unproved``, it may be of a version that had no leaves yet.
    """
    if where.startswith(POSTGRESQL):
        return PostgresDatabase(where, unproved=unproved)
    return DatabaseFile(Path(where), unproved=unproved)


@functools.cache
def _reopened(kind: Callable[..., Database], *where: Any) -> Database:
    """Return the database that another process has opened, opened here once."""
    return kind(*where)


class DatabaseFile(Database):
    """A file. Raises ``ConfigError`` where it is not one of central's."""

    _text = MappingProxyType({"text": "CAST", "as_bytes": " AS BLOB"})
    _mark = "?"

    def __init__(self, path: Path, mode: str = "", *, unproved: bool = False) -> None:
        """Open ``path``. A copy without its -wal file is read as it is; beside a running central that one has the newest rows."""
        if not path.is_file():
            raise UsageError(f"there is no file {path}")
        mode = mode or ("ro" if path.with_name(path.name + "-wal").exists() else "ro&immutable=1")
        self._path, self._mode = path, mode
        self._connection = sqlite3.connect(
            f"file:{urllib.parse.quote(str(path.absolute()))}?mode={mode}", uri=True, isolation_level=None
        )
        try:
            super().__init__(unproved=unproved)
        except Damaged as damage:
            raise self._unreadable(damage) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (DatabaseFile, self._path, self._mode)

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR):
                raise Damaged(str(error)) from None
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> ConfigError:
        return ConfigError(f"{self._path} is not a readable audit database: {error}")

    def unguarded(self) -> list[str]:
        """Return which tables have no guard against which change. REPLACE is an insert that the third one refuses."""
        made = self._all("SELECT type, name, sql FROM sqlite_master")
        guards = {
            (match[2], match[1])
            for kind, _, text in made
            if kind == "trigger" and "RAISE(ABORT" in text and (match := _GUARD.search(text))
        }
        tables = {name for kind, name, _ in made if kind == "table" and not name.startswith("sqlite_")}
        return [
            f"{table} against {what}"
            for table in sorted(tables.difference(_BESIDE_THE_LOG))
            for what in ("UPDATE", "DELETE", "INSERT")
            if (table, what) not in guards
        ]

    def _tables(self) -> set[str]:
        return {name for (name,) in self._all("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def is_sound(self) -> bool:
        """Tell whether SQLite finds nothing wrong with the file's pages and indexes."""
        try:
            return self._all("PRAGMA integrity_check(1)") == [("ok",)]
        except Damaged:
            return False

    def _snapshot(self) -> None:
        self._connection.execute("BEGIN")


class PostgresDatabase(Database):
    """A PostgreSQL database. Raises ``ConfigError`` where it is not one of central's, ``AuditUnavailable`` where it is away."""

    _text = MappingProxyType({"text": "convert_to", "as_bytes": ", 'UTF8'"})
    _mark = "%s"

    def __init__(self, url: str, *, unproved: bool = False) -> None:
        """Connect to ``postgresql://role@host/database``; the role needs no more than to read."""
        import psycopg  # noqa: PLC0415 - with the extra "central" only

        self._psycopg, self._url = psycopg, url
        try:
            self._connection = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=10,
                application_name="prism-vault audit verify",
                options=_EVERY_STATEMENT,
            )
        except psycopg.Error as error:
            mend = "check its URL and state"
            raise AuditUnavailable(f"the database cannot be reached ({type(error).__name__})", mend=mend) from None
        super().__init__(unproved=unproved)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (PostgresDatabase, self._url)

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            with self._connection.cursor(binary=True) as cursor:
                return cursor.execute(statement, values or None).fetchall()
        except self._psycopg.OperationalError as error:
            raise AuditUnavailable(
                f"the database went away ({type(error).__name__})", mend="see its log, and try again"
            ) from None
        except self._psycopg.Error as error:
            if (error.sqlstate or "").startswith("XX"):  # internal error, data corrupted, index corrupted
                raise Damaged(type(error).__name__) from None
            raise ConfigError(f"the database is not a readable audit database ({type(error).__name__})") from None

    def unguarded(self) -> list[str]:
        """Return which tables have no guard against which change, by whomever (pg_trigger.h, ``tgtype``)."""
        tables = {name for (name,) in self._all("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        guards = self._all(
            "SELECT relname, tgtype FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
            "WHERE tgenabled = 'A' AND tgtype & 2 > 0"
        )
        return [
            f"{table} against {what}"
            for table in sorted(tables.difference(_BESIDE_THE_LOG))
            for what, bit in (("UPDATE", 16), ("DELETE", 8), ("TRUNCATE", 32))
            if not any(of == table and kind & bit for of, kind in guards)
        ]

    def _tables(self) -> set[str]:
        return {name for (name,) in self._all("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")}

    def _snapshot(self) -> None:
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
