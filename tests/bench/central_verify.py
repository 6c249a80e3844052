"""Rows that a verification takes in a second: ``python -m tests.bench.central_verify [ROWS]`` (default 1,000,000).

The log is a file with everything that verification looks at. The floor is what no verification can do without: hashing the bytes
of each row twice, for the chain and for the leaf. Wall and processor time, which is what counts where others use the machine
too, are the best of three runs, in turn.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prism_vault_agent.central.verification.databases import open_database
from prism_vault_agent.central.verification.verify import verify
from prism_vault_agent.proof.keys import SigningKey
from prism_vault_agent.proof.leaf import leaf_data
from tests.support.bulk import large

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = SigningKey.from_seed("bench/central", bytes(32))
ROUNDS = 3
FLOOR = "floor: sha256 of the bytes, twice"


class Took(NamedTuple):
    """Seconds of the clock, of processors, and the most memory of one process in MB (0 where it is our own)."""

    wall: float
    cpu: float
    memory: float = 0.0


def main(rows: int = 1_000_000) -> None:
    """Make the log, and verify it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        making = multiprocessing.get_context("spawn").Process(target=large, args=(Path(directory), rows, KEY))
        making.start()
        making.join()
        path = Path(directory) / "large.db"
        print(f"{rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB, {len(os.sched_getaffinity(0))} processors")
        contenders: dict[str, Callable[[], Took]] = {
            FLOOR: lambda: _hashed(path),
            "verify, one process": lambda: _verified(path, rows),
            "prism-vault audit verify": lambda: _command(path),
        }
        took: dict[str, list[Took]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, contender in contenders.items():
                took[name].append(contender())
        floor = min(each.cpu for each in took[FLOOR])
        print(f"{'':28}{'rows/s':>12}{'us a row':>10}{'cpu us':>9}{'floors':>8}{'MB':>7}")
        for name, each in took.items():
            wall, cpu = min(one.wall for one in each), min(one.cpu for one in each)
            told = f"{name:28}{rows / wall:12,.0f}{wall / rows * 1e6:10.2f}{cpu / rows * 1e6:9.2f}{cpu / floor:8.1f}"
            print(told + (f"{each[-1].memory:7.0f}" if each[-1].memory else ""))


def _hashed(path: Path) -> Took:
    """Hash, and count only that."""
    wall = cpu = 0.0
    with closing(sqlite3.connect(path)) as database:
        cursor = database.execute("SELECT n, received_at, body FROM event")
        while rows := cursor.fetchmany(10_000):
            begun, used = time.perf_counter(), time.process_time()
            for n, at, body in rows:
                sha256(body).digest()
                sha256(b"\x00" + leaf_data(n, at, body)).digest()
            wall += time.perf_counter() - begun
            cpu += time.process_time() - used
    return Took(wall, cpu)


def _verified(path: Path, rows: int) -> Took:
    begun, used = time.perf_counter(), time.process_time()
    with open_database(str(path)) as log:
        verdict = verify(log, keys=[KEY.verifying_key])
    assert (verdict.rows, verdict.fault, verdict.unguarded) == (rows, None, ())
    return Took(time.perf_counter() - begun, time.process_time() - used)


def _command(path: Path) -> Took:
    """Run the command as users do."""
    command = ["prism-vault", "audit", "verify", "--database", str(path), "--log-key", str(KEY.verifying_key)]
    begun = time.perf_counter()
    pid = os.posix_spawn(str(Path(sys.executable).with_name("prism-vault")), command, os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit("the log that was made does not verify")
    return Took(time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
