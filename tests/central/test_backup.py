"""Copies of the log: taken while central serves, found whole or not, and brought back, on both databases and across them."""

from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from sqlalchemy import text

from prism_vault_agent.central.backup import counts, take
from prism_vault_agent.central.check import check
from prism_vault_agent.central.restore import opened, restore
from prism_vault_agent.central.signing import read_key
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import reading_engine
from prism_vault_agent.errors import CannotCreate, ConfigError, IntegrityError
from tests.central.filled import fill
from tests.central.host import Host
from tests.central.own_log import KEY, Databases, OwnLog
from tests.support.central import CentralProcess
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    pass


def quiet(_line: str) -> None:
    """Hear of progress and say nothing."""


def everything(database: str) -> dict[str, list[Any]]:
    """Return every row of every table, sorted."""
    engine = reading_engine(database)
    with engine.connect() as connection:
        rows = {
            table.name: sorted(tuple(row) for row in connection.execute(table.select()))
            for table in schema.metadata.sorted_tables
        }
    engine.dispose()
    return rows


@pytest.fixture
def filled(databases: Databases) -> str:
    """Return a database with rows in every table but those of a node, which 256 leaves would make."""
    database = databases.new()
    fill(database, node=False)
    return database


@pytest.fixture
def backup(filled: str, tmp_path: Path) -> Path:
    """Return its backup."""
    take(filled, tmp_path / "backup.db", quiet)
    return tmp_path / "backup.db"


def test_a_backup_holds_every_row(filled, backup):
    """A backup of either database is one file (0600) with the same rows in the same tables, and it is found whole."""
    assert everything(str(backup)) == everything(filled)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert check(str(backup), KEY.verifying_key, quiet) == 7


def test_a_backup_is_never_written_over_a_file(filled, backup):
    """Where there is a file, a backup is refused and the file stays."""
    before = backup.read_bytes()

    with pytest.raises(CannotCreate):
        take(filled, backup, quiet)
    assert backup.read_bytes() == before


def test_a_backup_comes_back_into_either_database(filled, backup, databases, sqlite_databases, tmp_path):
    """What was restored, to a file and to a database of the same kind, has the same rows; hosts and the sequencer go on there."""
    target = str(tmp_path / "restored" / "audit.db") if databases.kind == "sqlite" else databases.bare()
    restore(backup, target, databases.owner(target), quiet)

    assert everything(target) == everything(filled)
    with OwnLog(target) as log:
        log.render("server9")
        log.sequence()
        assert [row.n for row in log.rows(schema.event.c.n)][-2:] == [8, 9]
        assert log.rows(schema.checkpoint.c.size)[-1].size == 9
        check(target, KEY.verifying_key, quiet)


@pytest.mark.tool("initdb")
def test_a_log_moves_from_a_file_to_another_cluster_and_back(sqlite_databases, tmp_path):
    """A backup of a file is restored to PostgreSQL, that log grows, and its backup is restored to a file: the same rows."""
    database = sqlite_databases.new()
    fill(database, node=False)
    take(database, tmp_path / "one.db", quiet)
    (tmp_path / "cluster").mkdir()
    with PostgresServer(tmp_path / "cluster") as other:
        restore(tmp_path / "one.db", other.url(), other.owner_url, quiet)
        with OwnLog(other.url()) as log:
            log.render()
            log.sequence()
        rows = everything(other.url())
        take(other.url(), tmp_path / "two.db", quiet)
    restore(tmp_path / "two.db", str(tmp_path / "back" / "audit.db"), "", quiet)

    assert everything(str(tmp_path / "back" / "audit.db")) == rows
    assert len(rows["event"]) == 9


def test_a_backup_is_not_restored_over_rows(filled, backup, databases):
    """A database that has tables already is left as it is."""
    before = everything(filled)

    with pytest.raises(ConfigError, match=r"already|there is a database"):
        restore(backup, filled, databases.owner(filled), quiet)
    assert everything(filled) == before


DAMAGES = {
    "an edited body": (
        "UPDATE event SET body = CAST(replace(CAST(body AS TEXT), 'web', 'ops') AS BLOB) WHERE n = 2",
        "first bad index 2",
    ),
    "an edited time": ("UPDATE event SET received_at = 1 WHERE n = 3", "first bad index 3"),
    "a body that came back": ("UPDATE event SET body = x'7b7d' WHERE n = 4", "first bad index 4"),
    "a body that went": ("UPDATE event SET body = x'' WHERE n = 1", "first bad index 1"),
    "a missing event": ("DELETE FROM event WHERE n = 2", "first bad index 2: its leaf is there, and no event"),
    "an event without its leaf's hash": ("UPDATE leaf SET hash = x'00' WHERE n = 3", "first bad index 3"),
    "a missing leaf": ("DELETE FROM leaf WHERE idx = 2", "leaf 2 is missing"),
    "a leaf of a dropped event": (
        "UPDATE leaf SET hash = zeroblob(32) WHERE n = 4",
        "rows 1 to 5 are not those of the checkpoint of 5",
    ),
    "a hash of a dropped event": ("UPDATE dropped SET hash = zeroblob(32) WHERE n = 4", "first bad index 4"),
    "another root": ("UPDATE checkpoint SET root = zeroblob(32)", "first bad index 5: .*is not what its note says"),
    "a forged note": (
        "UPDATE checkpoint SET note = replace(note, char(10, 53, 10), char(10, 52, 10))",
        "first bad index 5: .*is not what its note says",
    ),
}


def test_a_signature_of_another_key_is_told(backup):
    """A backup whose newest checkpoint is whole, but signed by another key of the log's name, is not believed."""
    other = type(KEY).generate(KEY.verifying_key.name).verifying_key

    with pytest.raises(IntegrityError, match="signed"):
        check(str(backup), other, quiet)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_a_backup_is_named(sqlite_databases, tmp_path, damage):
    """Each damage to a backup is found, by the first bad index or leaf."""
    database = sqlite_databases.new()
    fill(database, node=False)
    take(database, tmp_path / "backup.db", quiet)
    statement, why = DAMAGES[damage]
    with contextlib.closing(sqlite3.connect(tmp_path / "backup.db", isolation_level=None)) as damaged:
        for (name,) in damaged.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            damaged.execute(f"DROP TRIGGER {name}")
        damaged.execute(statement)
        assert damaged.total_changes == 1

    with pytest.raises(IntegrityError, match=why):
        check(str(tmp_path / "backup.db"), KEY.verifying_key, quiet)


def test_a_file_that_is_cut_short_or_none_is_told(backup, tmp_path):
    """A backup whose end is missing, or that is no database at all, is not whole."""
    for name, content in (("cut", backup.read_bytes()[:-8192]), ("text", b"not a database" * 1000)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(IntegrityError):
            check(str(tmp_path / name), KEY.verifying_key, quiet)


def central_command(central: CentralProcess, *arguments: str, largest: int = -1) -> subprocess.CompletedProcess[str]:
    """Run ``prism-vault central`` with the central's configuration; no file may grow beyond ``largest`` bytes."""
    return subprocess.run(
        [sys.executable, "-m", "prism_vault_agent", "central", *arguments, "--config", str(central.config_file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY)) if largest > 0 else None,
    )


def test_an_operator_backs_up_while_hosts_append(serving, tmp_path):
    """Under load a backup is taken, verifies with the configured key, is brought back, and nothing that was there is missing."""
    serving.start()
    done = threading.Event()
    load = threading.Thread(target=append_until, args=(serving, done))
    load.start()
    wait_until(lambda: len(serving.events()) > 20, timeout=30)
    before = [event["hash"] for event in serving.events()]
    took = central_command(serving, "backup", str(tmp_path / "backup.db"))
    verified = central_command(serving, "verify-backup", str(tmp_path / "backup.db"))
    done.set()
    load.join()

    assert (took.returncode, verified.returncode) == (0, 0), took.stderr + verified.stderr
    assert "every chain is whole" in verified.stdout
    with opened(tmp_path / "backup.db") as engine:
        check(str(tmp_path / "backup.db"), read_key(serving.key_file).verifying_key, quiet)
        assert counts(engine)["event"] >= len(before)
        with engine.connect() as connection:
            kept = connection.execute(text("SELECT count(*) FROM leaf")).scalar()
    assert kept


def append_until(central: CentralProcess, done: threading.Event) -> None:
    """Append until told to end."""
    host = Host(central)
    with contextlib.suppress(httpx2.HTTPError):
        while not done.is_set():
            host.end("success", host.reserve())


def test_a_full_disk_leaves_no_half_backup(sqlite_databases, tmp_path):
    """Where the disk takes no more, the command ends with 73 and one line, and nothing of the backup is left."""
    central = CentralProcess(tmp_path)
    central.write_config()
    central.database.parent.mkdir(mode=0o700)
    database = sqlite_databases.new()
    fill(database, node=False)
    shutil.copy(database, central.database)

    ended = central_command(central, "backup", str(tmp_path / "backup.db"), largest=50_000)

    assert ended.returncode == 73, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("backup.db*"))
    assert len(everything(str(central.database))["event"]) == 7
