"""What a power cut at any moment leaves of the log: every acknowledged row, in a database that opens, with a whole tree (F31)."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.audit.event import digest, new_id
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import Frontier, leaf_hash
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.disk import Disk, recorded, steps
from tests.support.soak import count
from tests.support.stored import verdict_of

if TYPE_CHECKING:
    from tests.support.disk import Step

pytestmark = pytest.mark.tool("strace")

HOSTS = {f"server{number}": ["*"] for number in range(1, 5)}
PAIRS = 240
LONG = 30_000  # rows as long as those of scopes with many names, so that the write-ahead log is folded in during the run


class Recording:
    """A run of central under load: its files before, what was done to them, and when which row was acknowledged."""

    def __init__(self, directory: Path) -> None:
        trace = directory / "trace"
        with CentralProcess(directory, agents=HOSTS) as central:
            central.stop()
            self.before = {str(path): path.read_bytes() for path in _files(central.database)}
            central.start(under=recorded(trace))
            self.acknowledged: list[tuple[float, int, str]] = []
            loads = [threading.Thread(target=self._append, args=(central, host)) for host in HOSTS]
            for load in loads:
                load.start()
            for load in loads:
                load.join()
            central.kill()
        self.database = central.database
        self.after = {str(path): path.read_bytes() for path in _files(self.database)}
        self.steps: list[Step] = steps(trace, {str(self.database), f"{self.database}-wal"})

    def disk(self) -> Disk:
        """Return the disk as it was before."""
        return Disk({path: bytearray(image) for path, image in self.before.items()})

    def _append(self, central: CentralProcess, name: str) -> None:
        host = Host(central, name)
        for _ in range(PAIRS // len(HOSTS)):
            reservation = new_id()
            for kind in ("reserved", "success"):
                answer = host.send(host.make(kind, reservation, names=["X" * LONG])).json()
                self.acknowledged.append((time.time(), answer["n"], answer["hash"]))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return a run under load of four hosts, long enough that the write-ahead log is folded in."""
    return Recording(tmp_path_factory.mktemp("recording"))


def test_the_recording_is_the_whole_run(recording):
    """Every step replayed gives the files that the killed process left, so nothing that it wrote is missing from the cuts."""
    disk = recording.disk()
    for step in recording.steps:
        disk.do(step)

    assert {path: disk.whole()[path] for path in recording.after} == recording.after
    assert len(recording.acknowledged) == PAIRS // len(HOSTS) * len(HOSTS) * 2
    assert str(recording.database) in {step.path for step in recording.steps}, "the write-ahead log was never folded in"


@pytest.mark.timeout(3600)
def test_a_power_cut_loses_nothing_that_was_acknowledged(recording, tmp_path):
    """After a cut at any moment, with unsynced sectors lost at random: acknowledged rows are there, chains and tree are whole."""
    chance = random.Random(31)
    cuts = sorted(chance.randrange(len(recording.steps)) for _ in range(count(40, 600)))
    disk = recording.disk()
    done = 0
    for cut in cuts:
        for step in recording.steps[done : cut + 1]:
            disk.do(step)
        done = cut + 1
        database = tmp_path / "audit.db"
        for path, image in disk.cut(chance).items():
            database.with_name(Path(path).name).write_bytes(image)
        _check(database, {n: found for at, n, found in recording.acknowledged if at < recording.steps[cut].at})
        for left in tmp_path.iterdir():
            left.unlink()


def test_the_cuts_would_show_a_sync_that_is_missing(recording, tmp_path):
    """The same run with its syncs taken away loses acknowledged rows at a cut, so the test above can fail."""
    disk = recording.disk()
    for step in recording.steps:
        if step.data is not None or step.size is not None:
            disk.do(step)
    database = tmp_path / "audit.db"
    for path, image in disk.cut(random.Random(1)).items():
        database.with_name(Path(path).name).write_bytes(image)

    with pytest.raises((AssertionError, sqlite3.DatabaseError)):
        _check(database, {n: found for _, n, found in recording.acknowledged})


def _check(database: Path, acknowledged: dict[int, str]) -> None:
    """Open what is left, and hold it against what was acknowledged."""
    with sqlite3.connect(database) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = {n: (at, body) for n, at, body in opened.execute("SELECT n, received_at, body FROM event")}
        leaves = opened.execute("SELECT n, hash FROM leaf ORDER BY idx").fetchall()
        newest = opened.execute("SELECT size, root FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone() or (
            0,
            Frontier().root(),
        )
    opened.close()
    hashes = {n: digest(body) for n, (_, body) in rows.items()}
    tree = Frontier()
    tree.extend([leaf for _, leaf in leaves[: newest[0]]])

    assert {n: hashes.get(n) for n in acknowledged} == acknowledged
    assert verdict_of(database).fault is None
    assert all(leaf == leaf_hash(leaf_data(n, *rows[n])) for n, leaf in leaves)
    assert tree.root() == newest[1]


def _files(database: Path) -> list[Path]:
    return [path for path in (database, database.with_name(database.name + "-wal")) if path.exists()]
