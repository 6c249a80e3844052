"""A log in a database of central's, opened so that it cannot change: a file, be it a copy or in use, or PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
import urllib.parse
from abc import ABC, abstractmethod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from prism_vault_agent.central.config import POSTGRESQL
from prism_vault_agent.central.verification.fault import Fault
from prism_vault_agent.central.verification.row import look
from prism_vault_agent.central.verification.tree import Sealed
from prism_vault_agent.errors import AuditUnavailable, ConfigError, UsageError
from prism_vault_agent.proof.merkle import TILE_LEVELS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

AT_ONCE: Final = 4_096
_EVENT: Final = (
    "event.event_id, {text}(event.host_id{as_bytes}), event.host_epoch, event.host_seq, event.prev_hash, event.reservation_id, "
    "{text}(event.kind{as_bytes}), event.received_at, event.body"
)
_WITH_LEAF: Final = (
    "SELECT leaf.idx, leaf.n, leaf.hash, {event}, {dropped} FROM leaf LEFT JOIN event ON event.n = leaf.n {join} "
    "WHERE leaf.idx > {after} ORDER BY leaf.idx LIMIT {most}"
)
_WITHOUT_LEAF: Final = (
    "SELECT NULL, event.n, NULL, {event}, {dropped} FROM event LEFT JOIN leaf ON leaf.n = event.n {join} "
    "WHERE leaf.idx IS NULL AND event.n > {after} ORDER BY event.n LIMIT {most}"
)
_DROPPED: Final = {"dropped": "dropped.by_n, dropped.hash", "join": "LEFT JOIN dropped ON dropped.n = event.n"}
_EVERY_STATEMENT: Final = (
    "-c default_transaction_read_only=on -c statement_timeout=10min -c search_path=public -c client_encoding=UTF8"
)
_NOTHING_DROPPED: Final = {"dropped": "NULL, NULL", "join": ""}


def open_database(where: str) -> Database:
    """Open the log in the PostgreSQL database or file that ``where`` names. Raises as the classes below do."""
    return PostgresDatabase(where) if where.startswith(POSTGRESQL) else DatabaseFile(Path(where))


_GUARD: Final = re.compile(r"BEFORE (UPDATE|DELETE|INSERT) ON (\w+)")


class Damaged(Exception):
    """The database has what central wrote no longer where it was."""


class Database(ABC):
    """What both kinds have in common. Nothing is locked for long, so that it can be one that central writes to."""

    look = staticmethod(look)
    _text: Mapping[str, str]

    def __init__(self) -> None:
        """Find out how far the checkpoints go: leaves that are read later go as far."""
        self.damage: Fault | None = None
        self._last = 0
        self._sealed = self._all("SELECT coalesce(max(size), 0) FROM checkpoint")[0][0]

        dropped = _DROPPED if self._has_dropped() else _NOTHING_DROPPED
        self._columns = {"event": _EVENT.format(**self._text), **dropped}

    @abstractmethod
    def _all(self, statement: str) -> list[tuple[Any, ...]]:
        """Return all rows of a statement."""

    @abstractmethod
    def _has_dropped(self) -> bool:
        """Tell whether there is a table ``dropped``: an older version's database has none."""

    @abstractmethod
    def _snapshot(self) -> None:
        """From now on, see the database as it is at the next statement."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def expected(self) -> int:
        """Return how many leaves there are."""
        found: int = self._all("SELECT coalesce(max(idx) + 1, 0) FROM leaf")[0][0]
        return found

    def parts(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield all rows as :class:`~prism_vault_agent.central.verification.row.Row` has them."""
        after = yield from self._from(_WITH_LEAF, -1, column=0)
        # What has no leaf by now must not get one unseen while it is looked for.
        self._snapshot()
        yield from self._from(_WITH_LEAF, after, column=0)
        yield from self._from(_WITHOUT_LEAF, 0, column=1)

    def checkpoints(self) -> Iterator[Sealed]:
        """Yield the checkpoints, by size."""
        statement = "SELECT size, root, note FROM checkpoint WHERE size <= {}"
        yield from (Sealed(*row) for row in self._each(statement.format(self._sealed), "size"))

    def nodes(self) -> Mapping[int, Iterator[tuple[int, bytes]]]:
        """Return the stored nodes of each level."""
        statement = "SELECT idx, hash FROM node WHERE level = {}"
        return {level: self._each(statement.format(level), "idx") for level in TILE_LEVELS}

    @abstractmethod
    def unguarded(self) -> list[str]:
        """Return which tables have no guard against which change."""

    def seal(self) -> Sealed | None:
        """Return None: a database has its checkpoints beside the rows."""
        return None

    def _each(self, statement: str, key: str) -> Iterator[tuple[Any, ...]]:
        """Yield what a statement selects by its first column, ``key``."""
        after = -1
        while rows := self._page(f"{statement} AND {key} > {{after}} ORDER BY {key} LIMIT {{most}}", after):
            yield from rows
            after = rows[-1][0]

    def _from(self, statement: str, after: int, column: int) -> Generator[list[tuple[Any, ...]], None, int]:
        """Yield pages of a statement by one of its columns, and return where it ended."""
        while rows := self._page(statement, after):
            yield rows
            after = rows[-1][column]
            self._last = rows[-1][1]
        return after

    def _page(self, statement: str, after: int, most: int = AT_ONCE) -> list[tuple[Any, ...]]:
        """Return the next rows; where not all can be read, those before what cannot."""
        try:
            return self._all(statement.format(**self._columns, after=after, most=most))
        except Damaged as damage:
            if most > 1:
                return self._page(statement, after, most // 8)
            self.damage = self.damage or Fault(self._last + 1, f"the database cannot be read from there on: {damage}")
            return []


class DatabaseFile(Database):
    """A file. Raises ``ConfigError`` where it is not one of central's."""

    _text = MappingProxyType({"text": "CAST", "as_bytes": " AS BLOB"})

    def __init__(self, path: Path) -> None:
        """Open ``path``. A copy without its -wal file is read as it is; beside a running central that one has the newest rows."""
        if not path.is_file():
            raise UsageError(f"there is no file {path}")
        mode = "ro" if path.with_name(path.name + "-wal").exists() else "ro&immutable=1"
        self._path = path
        self._connection = sqlite3.connect(
            f"file:{urllib.parse.quote(str(path.absolute()))}?mode={mode}", uri=True, isolation_level=None
        )
        try:
            super().__init__()
        except Damaged as damage:
            raise self._unreadable(damage) from None

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _all(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement).fetchall()
        except sqlite3.Error as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR):
                raise Damaged(str(error)) from None
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> ConfigError:
        return ConfigError(f"{self._path} is not a readable audit database: {error}")

    def unguarded(self) -> list[str]:
        """Return which tables have no guard against which change. REPLACE is an insert that the third one refuses."""
        made = self._all("SELECT type, name, sql FROM sqlite_master WHERE name NOT IN ('alembic_version')")
        guards = {
            (match[2], match[1])
            for kind, _, text in made
            if kind == "trigger" and "RAISE(ABORT" in text and (match := _GUARD.search(text))
        }
        tables = sorted(name for kind, name, _ in made if kind == "table" and not name.startswith("sqlite_"))
        return [
            f"{table} against {what}"
            for table in tables
            for what in ("UPDATE", "DELETE", "INSERT")
            if (table, what) not in guards
        ]

    def _has_dropped(self) -> bool:
        return bool(self._all("SELECT 1 FROM sqlite_master WHERE name = 'dropped'"))

    def _snapshot(self) -> None:
        self._connection.execute("BEGIN")


class PostgresDatabase(Database):
    """A PostgreSQL database. Raises ``ConfigError`` where it is not one of central's, ``AuditUnavailable`` where it is away."""

    _text = MappingProxyType({"text": "convert_to", "as_bytes": ", 'UTF8'"})

    def __init__(self, url: str) -> None:
        """Connect to ``postgresql://role@host/database``; the role needs no more than to read."""
        import psycopg  # noqa: PLC0415 - with the extra "central" only

        self._psycopg = psycopg
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
        super().__init__()

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _all(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            with self._connection.cursor(binary=True) as cursor:
                return cursor.execute(statement).fetchall()
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
        tables = self._all("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'")
        guards = self._all(
            "SELECT relname, tgtype FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
            "WHERE tgenabled = 'A' AND tgtype & 2 > 0"
        )
        return [
            f"{table} against {what}"
            for (table,) in sorted(tables)
            for what, bit in (("UPDATE", 16), ("DELETE", 8), ("TRUNCATE", 32))
            if not any(of == table and kind & bit for of, kind in guards)
        ]

    def _has_dropped(self) -> bool:
        return self._all("SELECT to_regclass('public.dropped') IS NOT NULL")[0][0] is True

    def _snapshot(self) -> None:
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
