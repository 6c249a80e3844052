"""What tables hold is compared value by value, the same on both databases and across them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.central.backup import take
from prism_vault_agent.central.contents import compare, contents
from prism_vault_agent.central.restore import restore
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import reading_engine
from prism_vault_agent.errors import IntegrityError
from tests.central.filled import fill
from tests.central.owner import Owner

if TYPE_CHECKING:
    from pathlib import Path

    from tests.central.own_log import Databases

# One value of each table, whose rows the log does not prove, and of each that it does.
CHANGES = {
    "policy": "UPDATE policy SET name = 'rule9' WHERE version = 2",
    "token": "UPDATE token SET made_at = 1 WHERE name = 'token1'",
    "signal": "UPDATE signal SET kind = 'rotation' WHERE id = 1",
    "ack": "UPDATE ack SET host_id = 'server9' WHERE signal = 1",
    "checkpoint": "UPDATE checkpoint SET floor = floor - 1",
    "dropped": "UPDATE dropped SET by_n = 6 WHERE n = 4",
    "term": "UPDATE term SET term = term + 1 WHERE n = 1",
    "event": "UPDATE event SET received_at = received_at + 1 WHERE n = 6",
    "leaf": "UPDATE leaf SET n = 6 WHERE idx = 4",
    "node": "UPDATE node SET idx = 1",
}


def held(database: str) -> dict[str, Any]:
    """Return what a database holds."""
    engine = reading_engine(database)
    try:
        return dict(contents(engine))
    finally:
        engine.dispose()


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[str, str]]:
    """Return for each kind of database two with the same rows, once they are made."""
    return {}


@pytest.fixture
def pair(pairs: dict[str, tuple[str, str]], databases: Databases) -> tuple[str, str]:
    """Return a database with rows in every table, and a copy."""
    if databases.kind not in pairs:
        database = databases.new()
        fill(database)
        pairs[databases.kind] = database, databases.copy(database)
    return pairs[databases.kind]


def test_every_table_is_compared():
    """There is a change below for every table of the schema."""
    assert set(CHANGES) == set(schema.metadata.tables)


@pytest.mark.parametrize("table", CHANGES)
def test_one_value_of_any_table_is_told(pair, databases: Databases, table: str):
    """Two databases with the same rows compare as the same; one value that differs is told by its table, and by it alone."""
    database = databases.copy(pair[1])
    before = held(pair[0])
    assert held(database) == before
    owner = Owner(databases, database)
    owner.unguard()
    owner.run(CHANGES[table])

    after = held(database)
    assert [name for name in before if after[name] != before[name]] == [table]
    assert after[table].rows == before[table].rows
    one, other = reading_engine(pair[0]), reading_engine(database)
    with pytest.raises(IntegrityError, match=f"both: the table {table} does not hold the same"):
        compare(one, other, "both")
    one.dispose()
    other.dispose()


@pytest.mark.tool("initdb")
def test_what_moved_to_another_kind_of_database_holds_the_same(sqlite_databases, postgresql_databases, tmp_path: Path):
    """Rows that went from a file to a server and back have the same hashes in all three, whatever order each sorts text in."""
    database = sqlite_databases.new()
    fill(database, node=False)
    owner = Owner(sqlite_databases, database)
    for name in ("B", "a", "_", "\u00e9", "-"):
        owner.run("INSERT INTO token VALUES (?, 'created', ?, x'7b7d', 7, 0)", name, f"{name:z>64}")
    take(database, tmp_path / "one.db", print)
    server = postgresql_databases.bare()
    restore(tmp_path / "one.db", server, postgresql_databases.owner(server), print)
    take(server, tmp_path / "two.db", print)

    assert held(database) == held(server) == held(str(tmp_path / "two.db"))
