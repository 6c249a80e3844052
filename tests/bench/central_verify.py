"""Rows that a verification takes in a second: ``python -m tests.bench.central_verify [ROWS]`` (default 1,000,000).

The log is a file with everything that verification looks at, the same in PostgreSQL, and an export of it. The floor is what no
verification can do without: hashing the bytes of each row twice, for the chain and for the leaf. Wall and processor time, which
is what counts where others use the machine too, are the best of three runs, in turn; PostgreSQL's own time is not in it.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prism_vault_agent.central.storage.engines import migrate
from prism_vault_agent.central.verification.databases import open_database
from prism_vault_agent.central.verification.export import closing_line, row_line
from prism_vault_agent.central.verification.verify import verify
from prism_vault_agent.proof.keys import SigningKey
from prism_vault_agent.proof.leaf import leaf_data
from tests.support.bulk import fill, large
from tests.support.postgres import PostgresServer

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
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        path, export = Path(directory) / "large.db", Path(directory) / "large.jsonl"
        server = stack.enter_context(PostgresServer(Path(directory)))
        # By another process: this one's memory is where that of the commands begins.
        making = multiprocessing.get_context("spawn").Process(
            target=_make, args=(path, export, server.url(), server.owner_url, rows)
        )
        making.start()
        making.join()
        print(f"{rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB, {len(os.sched_getaffinity(0))} processors")
        contenders: dict[str, Callable[[], Took]] = {
            FLOOR: lambda: _hashed(path),
            "verify, one process": lambda: _verified(path, rows),
            "audit verify, a file": lambda: _command("--database", str(path)),
            "audit verify, PostgreSQL": lambda: _command("--database", server.url()),
            "audit verify, an export": lambda: _command("--export", str(export)),
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


def _make(path: Path, export: Path, url: str, owner_url: str, rows: int) -> None:
    """Make the log in each of its forms."""
    _export(large(path.parent, rows, KEY), export)
    migrate(url, owner_url)
    fill(url, owner_url, rows, KEY)


def _export(path: Path, export: Path) -> None:
    """Write the log as ``prism-vault audit export`` does."""
    with open_database(str(path)) as log, export.open("wb") as file:
        for part in log.parts():
            for idx, n, leaf, event_id, host, epoch, seq, prev, reservation, kind, at, body, *_ in map(tuple, log.rows(part)):
                ids = {"event_id": event_id.hex(), "host_id": host.decode(), "host_epoch": epoch.hex(), "host_seq": seq}
                more = {"prev_hash": prev.hex(), "kind": kind.decode(), "reservation_id": reservation.hex(), "received_at": at}
                said = {"body": body.decode(), "hash": sha256(body).hexdigest(), "dropped_by": None}
                file.write(row_line({"index": idx, "leaf": leaf.hex(), "n": n} | ids | more | said))
        *_, last = log.checkpoints()
        file.write(closing_line(last.size, last.note))


def _command(*where: str) -> Took:
    """Run the command as users do."""
    command = ["prism-vault", "audit", "verify", *where, "--log-key", str(KEY.verifying_key)]
    begun = time.perf_counter()
    pid = os.posix_spawn(str(Path(sys.executable).with_name("prism-vault")), command, os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit("the log that was made does not verify")
    return Took(time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
