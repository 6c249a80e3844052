"""Whatever statement reaches the SQLite file: no row of any table is changed, and a body goes by the rules only."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.central.storage import schema
from tests.central.filled import ADMIN, GONE, NEW, OPEN, OVER, SUCCESS, fill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.central.own_log import Databases

TABLES = sorted(schema.metadata.tables)


@pytest.fixture(scope="module")
def file(sqlite_databases: Databases) -> str:
    """Return a database with rows in every table."""
    path = sqlite_databases.new()
    fill(path)
    return path


@pytest.fixture(params=["recursive", "not recursive"])
def database(request: pytest.FixtureRequest, file: str) -> Iterator[sqlite3.Connection]:
    """Return a connection of a stranger to our settings, with recursive triggers and without; the rows stay as they were."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as opened:
        opened.execute(f"PRAGMA recursive_triggers = {'ON' if request.param == 'recursive' else 'OFF'}")
        before = everything(opened)
        yield opened
        assert everything(opened) == before


def everything(database: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every table."""
    return {table: database.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def columns(database: sqlite3.Connection, table: str) -> list[str]:
    """Return the names of the columns."""
    return [row[1] for row in database.execute(f"PRAGMA table_info({table})")]


def unique_keys(database: sqlite3.Connection, table: str) -> dict[str, set[str]]:
    """Return each set of columns of which no two rows have the same, as the database itself tells it, with its index's name."""
    keys = {"primary": {row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[5]}}
    for _, name, unique, *_ in database.execute(f"PRAGMA index_list({table})").fetchall():
        if unique:
            keys[name] = {row[2] for row in database.execute(f"PRAGMA index_info({name})")}
    return keys


def refused(database: sqlite3.Connection, statement: str) -> None:
    """Run a statement that a guard must refuse: an error of an index or a type would not show that it did."""
    with pytest.raises(sqlite3.IntegrityError, match=r"append-only|may not be dropped"):
        database.execute(statement)


def test_no_column_of_a_row_is_updated(database):
    """Each column of each table: an UPDATE is refused, also to the value that is there, and one that would replace (T27)."""
    for table, column in [(name, column) for name in TABLES for column in columns(database, name)]:
        refused(database, f"UPDATE {table} SET {column} = {column}")
        refused(database, f"UPDATE OR REPLACE {table} SET {column} = (SELECT max({column}) FROM {table})")


def test_no_row_is_deleted(database):
    """Each table: a DELETE of one row, and of all, is refused (T27)."""
    for table in TABLES:
        key = next(iter(schema.metadata.tables[table].primary_key)).name
        protected = "n NOT IN (SELECT n FROM dropped)" if table == "term" else f"{key} = (SELECT max({key}) FROM {table})"
        refused(database, f"DELETE FROM {table} WHERE {protected}")
        refused(database, f"DELETE FROM {table}")


@pytest.mark.parametrize("table", TABLES)
def test_no_row_is_replaced_by_any_of_its_keys(database, table):
    """Each unique key of each table, full or partial: a row with the same key is refused, whatever else it holds (T27)."""
    for name, key in unique_keys(database, table).items():
        # Every other key is another one: so it is this key alone that the guard is asked for.
        others = {column for other in unique_keys(database, table).values() for column in other} - key
        chosen = {column: another(table, column) if column in others else column for column in columns(database, table)}
        where = {"one_open": "kind = 'reserved'", "one_final": "kind = 'success'"}.get(name, "true")
        values = f"SELECT {', '.join(chosen.values())} FROM {table} WHERE {where} LIMIT 1"
        for verb in ("REPLACE", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT"):
            refused(database, f"{verb} INTO {table} {values}")
        refused(database, f"INSERT INTO {table} {values} ON CONFLICT DO UPDATE SET {columns(database, table)[-1]} = x'00'")


def another(table: str, column: str) -> str:
    """Return an expression for a value of the column's type that no row of the table has."""
    kind = str(schema.metadata.tables[table].columns[column].type)
    return {"BIGINT": "12345678", "BLOB": "randomblob(16)", "TEXT": "hex(randomblob(8))"}[kind]


def test_no_row_is_replaced_by_its_rowid(database):
    """A row cannot be replaced through a number that is not among its columns: a table has one only where it is the key."""
    for table in TABLES:
        (sql,) = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", [table]).fetchone()
        keys = [row for row in database.execute(f"PRAGMA table_info({table})") if row[5]]
        assert "WITHOUT ROWID" in sql or [(row[2], row[5]) for row in keys] == [("INTEGER", 1)], table
        assert "STRICT" in sql


@pytest.mark.parametrize(
    ("n", "by_n", "why"),
    [
        (NEW, ADMIN, "no checkpoint covers it"),
        (99, ADMIN, "no checkpoint covers it"),
        (OPEN, ADMIN, "its reservation is open"),
        (OVER, SUCCESS, "no event of central drops it"),
        (OVER, 99, "no event of central drops it"),
        (GONE, ADMIN, "such a row exists"),
    ],
)
def test_a_body_is_dropped_by_the_rules_only(database, n, by_n, why):
    """A row is named as dropped only under a checkpoint, with its reservation over, by an event of central's, and once."""
    with pytest.raises(sqlite3.IntegrityError, match=why):
        database.execute("INSERT OR REPLACE INTO dropped VALUES (?, ?, x'00')", [n, by_n])


def test_what_central_says_about_the_log_cannot_be_dropped(sqlite_databases):
    """An event of central's own about the log is not named as dropped, also under a checkpoint."""
    path = sqlite_databases.new()
    fill(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as opened:
        opened.execute("INSERT INTO leaf VALUES (5, ?, x'00')", [ADMIN])
        opened.execute("INSERT INTO checkpoint VALUES (9, x'00', '', 0, 0)")

        with pytest.raises(sqlite3.IntegrityError, match="it is about the log itself"):
            opened.execute("INSERT INTO dropped VALUES (?, ?, x'00')", [ADMIN, ADMIN])


@pytest.mark.parametrize(
    "change", ["body = x'7b7d'", "body = x'', kind = 'failure'", "body = x'', n = 99", "body = x'', received_at = 1"]
)
def test_of_a_dropped_row_nothing_but_the_body_goes(database, change):
    """A row that is named as dropped takes no other body, and no other change together with an empty one."""
    refused(database, f"UPDATE event SET {change} WHERE n = {GONE}")


def test_an_empty_body_needs_its_row_in_dropped(database):
    """A body does not become empty where its row is not named as dropped."""
    refused(database, f"UPDATE event SET body = x'' WHERE n = {OVER}")
