"""What a database does for each statement that central gives it: the statements are recorded, and explained afterwards."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from sqlalchemy import event

import prism_vault_agent
from prism_vault_agent.central.storage.postgres import PLANNER, is_postgres
from prism_vault_agent.central.storage.schema import metadata, presence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

PACKAGE: Final = Path(prism_vault_agent.__file__).parent
# An insert that may be a change of a row that is there looks for that.
ASKS: Final = re.compile(
    rf"(SELECT|UPDATE|DELETE).*\b(FROM|UPDATE) ({'|'.join((*metadata.tables, presence.name))})\b|INSERT.* ON CONFLICT .* UPDATE",
    re.DOTALL,
)
# Of SQLite's EXPLAIN QUERY PLAN. What is anonymous is the rows of a subquery, which is explained beside it.
LINE: Final = re.compile(r"(SCAN|SEARCH) (?!anon_)(\w+)(?: USING (?:COVERING )?INDEX (\w+))?")


class Statement(NamedTuple):
    """A statement as the driver got it, and where in the package it comes from: file and line of each caller, nearest first."""

    sql: str
    values: Any
    callers: tuple[tuple[str, int], ...]


class Step(NamedTuple):
    """A look at one table: ``by`` is its index, empty for a look at every row; ``whole`` tells that it has no bound."""

    table: str
    by: str
    whole: bool
    rows: int | None = None

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"{self.table} by {self.by or 'row after row'}{' as a whole' if self.whole else ''}"


@contextlib.contextmanager
def recorded(*engines: Engine) -> Iterator[list[Statement]]:
    """Give each new connection of ``engines`` cursors that take note, and yield what they took note of."""
    found: list[Statement] = []

    def note(sql: Any, values: Any) -> None:
        if isinstance(sql, str) and ASKS.match(sql):
            found.append(Statement(sql, values, _callers()))

    class SqliteCursor(sqlite3.Cursor):
        def execute(self, sql: str, values: Any = ()) -> Any:
            note(sql, values)
            return super().execute(sql, values)

    class Sqlite(sqlite3.Connection):
        def cursor(self, factory: Any = SqliteCursor) -> Any:
            return super().cursor(factory)

    class PostgresCursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **more: Any) -> Any:
            note(query, params)
            return super().execute(query, params, **more)

    def connecting(dialect: Any, _record: Any, _arguments: Any, settings: dict[str, Any]) -> None:
        settings |= {"factory": Sqlite} if dialect.name == "sqlite" else {"cursor_factory": PostgresCursor}

    for engine in engines:
        event.listen(engine, "do_connect", connecting)
        engine.dispose()
    try:
        yield found
    finally:
        for engine in engines:
            event.remove(engine, "do_connect", connecting)
            engine.dispose()


@contextlib.contextmanager
def explaining(database: str) -> Iterator[Callable[[Statement], list[Step]]]:
    """Yield what returns the steps of a statement's plan. PostgreSQL runs what only reads, and tells how many rows it looked at.

    It reads a small table whole whatever indexes there are; so here it does that only where no index helps.
    """
    if is_postgres(database):
        options = f"-c default_transaction_read_only=on -c enable_seqscan=off {PLANNER}"
        with psycopg.connect(database, options=options) as connection:
            yield partial(_postgres, connection)
    else:
        with contextlib.closing(sqlite3.connect(database)) as opened:
            yield partial(_sqlite, opened)


def _postgres(connection: psycopg.Connection[Any], statement: Statement) -> list[Step]:
    how = "(FORMAT JSON, ANALYZE, TIMING OFF)" if statement.sql.startswith("SELECT") else "(FORMAT JSON)"
    ((plan,),) = connection.execute(f"EXPLAIN {how} {statement.sql}", statement.values).fetchall()
    return list(_steps(plan[0]["Plan"], limited=False))


def _sqlite(connection: sqlite3.Connection, statement: Statement) -> list[Step]:
    lines = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement.sql, statement.values)]
    # The first row in the order of a key, or the first few of them.
    first = " WHERE " not in statement.sql and re.search(r" LIMIT |\b(min|max)\(", statement.sql) is not None
    return [_step(found, first=first) for line in lines if (found := LINE.match(line))]


def _step(line: re.Match[str], *, first: bool) -> Step:
    bounded = line[1] == "SEARCH" or first
    return Step(line[2], line[3] or ("key" if bounded else ""), not bounded)


def _steps(node: dict[str, Any], *, limited: bool) -> Iterator[Step]:
    kind = node["Node Type"]
    if "Scan" in kind and "Relation Name" in node:
        bounded = "Index Cond" in node or kind == "Bitmap Heap Scan" or (limited and "Filter" not in node)
        index = node.get("Index Name", "bitmap" if kind == "Bitmap Heap Scan" else "")
        looked = None
        if "Actual Loops" in node:
            removed = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
            looked = (node["Actual Rows"] + removed) * node["Actual Loops"]
        yield Step(node["Relation Name"], index, not index or not bounded, looked)
    for inner in node.get("Plans", ()):
        yield from _steps(inner, limited=kind == "Limit")


def _callers() -> tuple[tuple[str, int], ...]:
    found = []
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            found.append((str(path.relative_to(PACKAGE)), frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)


def in_words(steps: list[Step]) -> str:
    """Return the steps in one line, each once."""
    return json.dumps(list(dict.fromkeys(map(str, steps))))[1:-1].replace('"', "")
