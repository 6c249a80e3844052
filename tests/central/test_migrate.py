"""A log with events is migrated only after its backup was restored elsewhere and found whole; else it stays as it was."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import text

from prism_vault_agent.central.contents import tables
from prism_vault_agent.central.restore import restore
from prism_vault_agent.central.signing import write_key
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import reading_engine, revision, upgrade_to, writing_engine
from prism_vault_agent.central.upgrade import SCRATCH
from tests.central.own_log import KEY, OwnLog
from tests.central.test_backup import central_command, quiet
from tests.support.central import CentralProcess

if TYPE_CHECKING:
    from tests.central.own_log import Databases

OLD = "0002"


class OldLog:
    """A log with events at an older version of the schema, and the configuration of its central."""

    def __init__(self, databases: Databases, sqlite_databases: Databases, directory: Path) -> None:
        self.databases = databases
        self.directory = directory
        self.central = CentralProcess(directory)
        file = self._old_file(sqlite_databases)
        if databases.kind == "sqlite":
            self.url = str(self.central.database)
            self.central.database.parent.mkdir(mode=0o700)
            file.rename(self.central.database)
            self.central.database.chmod(0o600)
        else:
            self.url = databases.bare()
            restore(file, self.url, databases.owner(self.url), quiet)
            self.central.set(log={"key_file": str(directory / "signing.key")})
        self.central.set(database=self.url, **({"database_owner": self.owner} if self.owner else {}))
        write_key(self.central.key_file, KEY)
        self.central.write_config()
        self.before = self.rows()

    @property
    def owner(self) -> str:
        """The URL of the administrator, if it is a server's."""
        return self.databases.owner(self.url)

    def _old_file(self, sqlite_databases: Databases) -> Path:
        """Make a file at the older version with the rows of a log of today."""
        today = sqlite_databases.new()
        with OwnLog(today) as log:
            for host in ("server1", "server2"):
                log.render(host)
            log.sequence()
            log.render(ending="")
        path = self.directory / "old.db"
        engine = writing_engine(str(path))
        upgrade_to(engine, str(path), OLD)
        engine.dispose()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
            old.execute("ATTACH ? AS today", [today])
            for table in schema.metadata.sorted_tables:
                if table.name != "dropped":
                    old.execute(f"INSERT INTO main.{table.name} SELECT * FROM today.{table.name}")
            old.execute("PRAGMA journal_mode = DELETE")
        return path

    def rows(self) -> tuple[str | None, dict[str, list[Any]]]:
        """Return the version of the schema and every row that the database has now."""
        engine = reading_engine(self.url)
        with engine.connect() as connection:
            found = {table.name: sorted(map(tuple, connection.execute(table.select()))) for table in tables(connection)}
        version = revision(engine)
        engine.dispose()
        return version, found

    def change(self, statement: str) -> None:
        """Do as the owner of the database, who gets the guards out of the way."""
        if self.owner:
            with psycopg.connect(self.owner, autocommit=True) as owner:
                owner.execute("ALTER TABLE event DISABLE TRIGGER USER")
                owner.execute(statement)
                owner.execute("ALTER TABLE event ENABLE TRIGGER USER")
            return
        with contextlib.closing(sqlite3.connect(self.url, isolation_level=None)) as opened:
            opened.execute("DROP TRIGGER event_no_update")
            opened.execute(statement)

    def migrate(self, **more: int) -> Any:
        """Run the command, with a place for the backup."""
        return central_command(self.central, "migrate", "--backup", str(self.directory / "backup.db"), **more)

    def nothing_is_left(self) -> bool:
        """Tell that no scratch database is there."""
        if not self.owner:
            return not list(self.directory.glob("*.check*"))
        with psycopg.connect(self.owner) as owner:
            return owner.execute("SELECT 1 FROM pg_database WHERE datname = %s", (SCRATCH,)).fetchone() is None


@pytest.fixture
def old(databases: Databases, sqlite_databases: Databases, tmp_path: Path) -> OldLog:
    """Return an older log on each kind of database."""
    return OldLog(databases, sqlite_databases, tmp_path)


def test_a_log_with_events_is_migrated_after_its_backup_was_checked(old):
    """Each step is said, the backup is there and whole, the rows are the same at the newer version, and no scratch is left."""
    ended = old.migrate()

    assert ended.returncode == 0, ended.stderr
    assert [line[:4] for line in ended.stderr.splitlines()] == ["1/4 ", "2/4 ", "3/4 ", "4/4 "]
    assert old.rows() == (schema.REVISION, {**old.before[1], "dropped": []})
    assert central_command(old.central, "verify-backup", str(old.directory / "backup.db")).returncode == 0
    assert old.nothing_is_left()
    assert "was already at" in old.migrate().stdout


def test_a_row_that_is_not_as_it_was_put_in_stops_the_migration(old):
    """An event that was edited is found in the restored backup: exit status 65, its index, and nothing was changed."""
    old.change("UPDATE event SET received_at = received_at + 1 WHERE n = 3")
    before = old.rows()

    ended = old.migrate()

    assert ended.returncode == 65
    assert "first bad index 3" in ended.stderr.splitlines()[-1]
    assert old.rows() == before
    assert before[0] == OLD
    assert old.nothing_is_left()


def test_a_checkpoint_of_another_key_stops_the_migration(old):
    """A log whose newest checkpoint the configured key did not sign is not migrated."""
    old.central.key_file.unlink()
    write_key(old.central.key_file, type(KEY).generate(KEY.verifying_key.name))

    assert old.migrate().returncode == 65
    assert old.rows() == old.before
    assert old.nothing_is_left()


def test_a_full_disk_stops_the_migration(old):
    """Where the backup cannot be written: exit status 73, one line besides the steps, and the database is as before."""
    ended = old.migrate(largest=60_000)

    assert ended.returncode == 73, ended.stderr
    assert [line for line in ended.stderr.splitlines() if not line.startswith("1/4")][1:] == []
    assert not list(old.directory.glob("backup.db*"))
    assert old.rows() == old.before


def test_a_migration_that_fails_changes_nothing(old):
    """A step that cannot be done takes back those before it: the version, the tables, the guards and the rows are as before."""
    taken = "CREATE FUNCTION drop_bodies(bigint, bigint[], bigint[], bigint[]) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'"
    trigger = "CREATE TRIGGER dropped_rule_4 BEFORE INSERT ON ack BEGIN SELECT 1; END"
    old.change(taken if old.owner else trigger)
    before, guards = old.rows(), guards_of(old)

    ended = old.migrate()

    assert ended.returncode == 78, ended.stderr
    assert "cannot be migrated" in ended.stderr.splitlines()[-1]
    assert old.rows() == before
    assert guards_of(old) == guards
    assert old.nothing_is_left()


def guards_of(old: OldLog) -> set[tuple[Any, ...]]:
    """Return every trigger with what it does."""
    question = "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'"
    if old.owner:
        question = "SELECT tgname, tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
    engine = reading_engine(old.url)
    with engine.connect() as connection:
        found = {tuple(row) for row in connection.execute(text(question))}
    engine.dispose()
    return found


@pytest.mark.tool("initdb")
def test_a_log_on_a_server_says_that_it_needs_a_place_for_its_backup(postgresql_databases, sqlite_databases, tmp_path):
    """Without ``--backup``, events on PostgreSQL are not migrated: 78, and the option is named."""
    old = OldLog(postgresql_databases, sqlite_databases, tmp_path)

    ended = central_command(old.central, "migrate")

    assert ended.returncode == 78
    assert "--backup" in ended.stderr
    assert old.rows() == old.before
