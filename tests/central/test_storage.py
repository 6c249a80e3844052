"""What the database refuses, and what is left of the log when the process, the disk or another writer fails."""

from __future__ import annotations

import json
import resource
import sqlite3
from typing import TYPE_CHECKING

import httpx2
import psutil
import pytest
from sqlalchemy import inspect

from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import migrate, reading_engine, revision, writing_engine
from tests.central.host import Host, told
from tests.support.central import CentralProcess
from tests.support.stored import verdict_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    pass

CHANGES = {
    "update": "UPDATE event SET kind = 'failure' WHERE n = 1",
    "update of an index": "UPDATE event SET n = 99 WHERE n = 1",
    "update or replace": "UPDATE OR REPLACE event SET n = 1 WHERE n = 2",
    "delete": "DELETE FROM event WHERE n = 1",
    "delete of all": "DELETE FROM event",
    "replace by index": (
        "INSERT OR REPLACE INTO event SELECT 1, randomblob(16), 'x', x'00', 1, x'00', randomblob(16), 'admin', 0, x'00'"
    ),
    "replace by event id": (
        "REPLACE INTO event SELECT 99, event_id, 'x', x'00', 1, x'00', randomblob(16), 'admin', 0, x'00' FROM event WHERE n = 1"
    ),
    "replace by place": (
        "REPLACE INTO event SELECT 99, randomblob(16), host_id, host_epoch, host_seq, x'00', randomblob(16), 'admin', 0, x'00' "
        "FROM event WHERE n = 1"
    ),
    "replace of a reservation": (
        "REPLACE INTO event SELECT 99, randomblob(16), 'x', x'00', 1, x'00', reservation_id, 'reserved', 0, x'00' "
        "FROM event WHERE kind = 'reserved'"
    ),
    "replace of an outcome": (
        "REPLACE INTO event SELECT 99, randomblob(16), 'x', x'00', 1, x'00', reservation_id, 'failure', 0, x'00' "
        "FROM event WHERE kind = 'success'"
    ),
    "upsert": (
        "INSERT INTO event SELECT 1, randomblob(16), 'x', x'00', 1, x'00', randomblob(16), 'admin', 0, x'00' WHERE true "
        "ON CONFLICT (n) DO UPDATE SET kind = 'failure'"
    ),
    "second outcome": (
        "INSERT INTO event SELECT 99, randomblob(16), 'x', x'00', 1, x'00', reservation_id, 'abandoned', 0, x'00' "
        "FROM event WHERE kind = 'success'"
    ),
    "value of another type": "INSERT INTO event VALUES (99, 'text', 'x', x'00', 'one', x'00', x'00', 'admin', 0, x'00')",
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory):
    """Return a running central whose log has a reservation and its success."""
    with CentralProcess(tmp_path_factory.mktemp("filled")) as running:
        host = Host(running)
        host.end("success", host.reserve())
        yield running


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
@pytest.mark.parametrize("name", CHANGES)
def test_the_live_database_refuses_every_change_of_a_row(filled, name, recursive):
    """No statement changes, removes or replaces a row, whatever the connection's settings; the rows stay as they are (T27)."""
    database = sqlite3.connect(filled.database)
    database.execute(f"PRAGMA recursive_triggers = {recursive}")
    before = database.execute("SELECT * FROM event ORDER BY n").fetchall()

    with pytest.raises(sqlite3.IntegrityError):
        database.execute(CHANGES[name])

    assert database.execute("SELECT * FROM event ORDER BY n").fetchall() == before
    database.close()


def test_every_connection_has_the_settings(tmp_path):
    """Write-ahead log, a full sync at each commit, recursive triggers and no trusted schema, on every connection."""
    path = tmp_path / "db" / "audit.db"
    migrate(str(path))
    expected = {"journal_mode": "wal", "synchronous": 2, "recursive_triggers": 1, "trusted_schema": 0, "busy_timeout": 2000}
    for engine, query_only in ((writing_engine(str(path)), 0), (reading_engine(str(path)), 1)):
        with engine.connect() as connection:
            for name, value in {**expected, "query_only": query_only}.items():
                assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value, name
        engine.dispose()


def test_the_migrations_make_the_schema(tmp_path):
    """The table that the migrations make has the columns and indexes of ``schema.py``, and a second run changes nothing."""
    path = tmp_path / "db" / "audit.db"
    assert migrate(str(path)) == (None, schema.REVISION)
    assert migrate(str(path)) == (schema.REVISION, schema.REVISION)
    engine = reading_engine(str(path))
    found = inspect(engine)

    assert revision(engine) == schema.REVISION
    assert [column["name"] for column in found.get_columns("event")] == schema.event.columns.keys()
    assert {index["name"]: bool(index["unique"]) for index in found.get_indexes("event")} == {
        str(index.name): bool(index.unique) for index in schema.event.indexes
    }
    engine.dispose()


def test_the_database_is_its_owner_s(filled):
    """The directory has mode 0700 and each file in it 0600."""
    modes = {path.name: path.stat().st_mode & 0o777 for path in filled.database.parent.iterdir()}

    assert filled.database.parent.stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}
    assert "audit.db-wal" in modes


def test_a_full_disk_acknowledges_nothing_and_mends_itself(tmp_path):
    """While the disk takes no more, appends get 503 and readiness is false; afterwards the same events are taken (F29)."""
    with CentralProcess(tmp_path) as central:
        assert central.process is not None
        process = psutil.Process(central.process.pid)
        host = Host(central)
        host.end("success", host.reserve())
        size = max(path.stat().st_size for path in central.database.parent.iterdir() if path.suffix != ".db-shm")
        process.rlimit(resource.RLIMIT_FSIZE, (size + 20_000, resource.RLIM_INFINITY))
        taken: list[int] = []
        body = host.make("reserved")
        while (answer := host.send(body)).status_code == 201:
            taken.append(answer.json()["n"])
            assert len(taken) < 1000
            body = host.make("reserved")

        again = host.send(body).status_code
        wait_until(lambda: host.client.get("/readyz").status_code == 503)
        alive = host.client.get("/healthz").status_code
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_until(lambda: host.client.get("/readyz").status_code == 200)
        after = host.send(body)
        present = [event["n"] for event in central.events()]

    assert (answer.json()["code"], again, alive) == ("storage", 503, 200)
    assert after.status_code == 201
    assert set(taken) <= set(present)
    assert len(present) == len(taken) + 3
    assert verdict_of(central.database).fault is None


def test_a_database_that_another_holds_is_answered_in_time(tmp_path):
    """While another writer keeps the lock, an append gets 503 within the agent's time, and is taken afterwards (F32)."""
    with CentralProcess(tmp_path) as central:
        host = Host(central)
        other = sqlite3.connect(central.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        body = host.make("reserved")

        held = host.send(body)
        other.execute("ROLLBACK")
        free = host.send(body)
        other.close()

    assert (held.status_code, held.json()["code"], held.headers["retry-after"]) == (503, "storage", "1")
    assert held.elapsed.total_seconds() < 4.5
    assert free.status_code == 201


def test_an_append_that_is_given_up_is_taken_once(tmp_path):
    """An answer that never came is asked for again: what was persisted is answered, what was not is taken; one row (F20, F21)."""
    with CentralProcess(tmp_path) as central:
        host = Host(central)
        host.reserve()
        body = host.make("reserved")
        central.pause()
        host.client.timeout = httpx2.Timeout(0.3)
        with pytest.raises(httpx2.TimeoutException):
            host.send(body)
        central.resume()
        host.client.timeout = httpx2.Timeout(10)

        answer = host.send(body)

        assert answer.status_code == 201
        assert len(central.events(reservation=answer.json()["audit_id"])) == 1


def test_the_log_survives_a_restart(tmp_path):
    """After a restart the chain, the open reservation and the answers to replays are as before."""
    with CentralProcess(tmp_path) as central:
        host = Host(central)
        body = host.make("reserved")
        first = host.send(body)
        central.restart()
        after = Host(central)
        after.chain = host.chain

        assert told(after.send(body)) == told(first)
        assert after.end("success", json.loads(body)["reservation"]).status_code == 200
