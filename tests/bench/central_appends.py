"""Events that the log takes in a second, in process: ``python -m tests.bench.central_appends [SECONDS]``.

Every contender runs on the same machine and databases, one after the other, durable at each commit. The floor on SQLite is a
plain insert by one connection, a commit each, and one in groups of 64; on PostgreSQL ``pgbench`` inserting rows of the same
size into a table with one unique index, and into a global hash chain, which is how a log is usually made tamper-evident.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import deque
from functools import partial
from pathlib import Path

import psycopg

from prism_vault_agent.audit.event import Chain, new_id
from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.access.policy import Policies, Policy, Rule
from prism_vault_agent.central.log.append import append
from prism_vault_agent.central.log.incoming import Event, read
from prism_vault_agent.central.log.sequencer import Sequencer
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.log.writer import Writer
from prism_vault_agent.central.serve import SWITCH_SECONDS
from prism_vault_agent.central.storage.engines import migrate, reading_engine, writing_engine
from prism_vault_agent.proof.keys import SigningKey
from tests.bench.stand import percentile
from tests.central.host import fields
from tests.support.postgres import PostgresServer, binaries

WRITERS = (1, 16, 64)
EVERY = frozenset({"*"})
POLICIES = Policies(0, (Policy("config:1", 0, Rule("*", "*", EVERY, EVERY, EVERY, EVERY)),))
PLAIN = "CREATE TABLE plain (n bigserial PRIMARY KEY, id uuid UNIQUE DEFAULT gen_random_uuid(), body bytea NOT NULL)"
CHAINED = """
CREATE TABLE chained (LIKE plain INCLUDING ALL, hash bytea NOT NULL);
CREATE TABLE head (one int PRIMARY KEY, hash bytea NOT NULL);
INSERT INTO head VALUES (1, '');
CREATE FUNCTION chain(given bytea) RETURNS void LANGUAGE plpgsql AS $$
DECLARE last bytea;
BEGIN
  SELECT hash INTO last FROM head WHERE one = 1 FOR UPDATE;
  last := sha256(last || given);
  INSERT INTO chained (body, hash) VALUES (given, last);
  UPDATE head SET hash = last WHERE one = 1;
END $$;
"""


class Sender:
    """A host whose events were made before the clock starts, and its latencies in seconds."""

    def __init__(self, name: str, pairs: int) -> None:
        chain = Chain(name, new_id())
        self.identity = Identity(name, "agent", name, EVERY)
        self.events: deque[Event] = deque()
        self.took: list[float] = []
        for _ in range(pairs):
            reservation = new_id()
            for kind in ("reserved", "success"):
                body = chain.seal(fields(kind, reservation))
                chain.accept(body)
                self.events.append(read(body))

    async def run(self, writer: Writer, until: float) -> None:
        """Append one event after the other until then."""
        while self.events and time.perf_counter() < until:
            event = self.events.popleft()
            begun = time.perf_counter()
            work = partial(append, identity=self.identity, policies=POLICIES, events=[event])
            (answer,) = await writer.do(work, [event.reservation])
            assert answer.appended
            self.took.append(time.perf_counter() - begun)


async def ours(database: str, writers: int, seconds: float, *, shared: bool) -> tuple[float, float, float]:
    """Return our events a second, their p99 latency, and the p99 time from a row to its checkpoint, both in milliseconds."""
    senders = [Sender(f"host{number}", int(seconds * 20_000 / writers / 2)) for number in range(writers)]
    writer = Writer(Store(writing_engine(database)), print)
    sequencing = Writer(Store(writing_engine(database)), print) if shared else writer
    sequencer = Sequencer(sequencing, SigningKey.generate("bench/log"), 0.2, shared=shared)
    writer.news = sequencer.news
    for each in {writer, sequencing}:
        each.start()
    loop = asyncio.create_task(sequencer.run())
    begun = time.perf_counter()
    await asyncio.gather(*(sender.run(writer, begun + seconds) for sender in senders))
    took = time.perf_counter() - begun
    await asyncio.sleep(1)
    loop.cancel()
    for each in {writer, sequencing}:
        await asyncio.to_thread(each.stop)
    latencies = [1000 * each for sender in senders for each in sender.took]
    return len(latencies) / took, percentile(latencies, 0.99), percentile(lags(database), 0.99)


def lags(database: str) -> list[float]:
    """Return for each row of the newest run how long it waited for its checkpoint, in milliseconds."""
    question = (
        "SELECT (SELECT min(c.made_at) FROM checkpoint c WHERE c.size > l.idx) - e.received_at "
        "FROM event e JOIN leaf l ON l.n = e.n WHERE e.n / 37 * 37 = e.n"  # a sample of them
    )
    engine = reading_engine(database)
    with engine.connect() as connection:
        found = [float(row[0]) for row in connection.exec_driver_sql(question) if row[0] is not None]
    engine.dispose()
    return found


def plain_sqlite(path: Path, group: int, seconds: float) -> float:
    """Return rows a second of a plain insert, ``group`` to a commit."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS plain (n INTEGER PRIMARY KEY, id BLOB UNIQUE, body BLOB NOT NULL) STRICT")
    rows, begun = 0, time.perf_counter()
    while time.perf_counter() < begun + seconds:
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO plain (id, body) VALUES (?, ?)", [(os.urandom(16), b"x" * 400) for _ in range(group)])
        database.execute("COMMIT")
        rows += group
    return rows / (time.perf_counter() - begun)


def pgbench(server: PostgresServer, statement: str, clients: int, seconds: float) -> float:
    """Return transactions a second of a statement."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement)
        script.flush()
        options = ["-n", "-M", "prepared", "-f", script.name, "-c", str(clients), "-j", "2", "-T", str(int(seconds))]
        words = [str(binaries() / "pgbench"), *options, server.owner_url]
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"tps = ([0-9.]+)", told)
    assert found is not None, told
    return float(found[1])


def main() -> None:
    """Run and print the tables and the goals."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    sys.setswitchinterval(SWITCH_SECONDS)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        print(f"SQLite, full sync{'':18}{'writers':>9}{'rows/s':>9}{'p99 ms':>9}{'row to checkpoint p99 ms':>27}")
        for group in (1, 64):
            print(f"{f'plain insert, {group} to a commit':34}{1:9}{plain_sqlite(directory / 'plain.db', group, seconds):9.0f}")
        rate = 0.0
        for writers in WRITERS:
            database = str(directory / f"sqlite-{writers}" / "audit.db")
            migrate(database)
            rate, last, lag = asyncio.run(ours(database, writers, seconds, shared=False))
            print(f"{'central':34}{writers:9}{rate:9.0f}{last:9.1f}{lag:27.0f}")
        print(f"goal: at least 5,000 rows a second in process with 64 writers: {rate:.0f}\n")
        _postgres(directory, seconds)


def _postgres(directory: Path, seconds: float) -> None:
    (directory / "server").mkdir()
    with PostgresServer(directory / "server") as server:
        migrate(server.url(), server.owner_url)
        with psycopg.connect(server.owner_url, autocommit=True) as admin:
            admin.execute(PLAIN)
            admin.execute(CHAINED)
        body = "decode(repeat('ab', 400), 'hex')"
        print(f"PostgreSQL{'':24}{'writers':>9}{'rows/s':>9}{'p99 ms':>9}{'row to checkpoint p99 ms':>27}")
        plain = chained = rate = 0.0
        for writers in WRITERS:
            plain = pgbench(server, f"INSERT INTO plain (body) VALUES ({body});", writers, seconds)
            chained = pgbench(server, f"SELECT chain({body});", writers, seconds)
            rate, last, lag = asyncio.run(ours(server.url(), writers, seconds, shared=True))
            print(f"{'plain insert (pgbench)':34}{writers:9}{plain:9.0f}")
            print(f"{'global hash chain (pgbench)':34}{writers:9}{chained:9.0f}")
            print(f"{'central, with proofs':34}{writers:9}{rate:9.0f}{last:9.1f}{lag:27.0f}")
        print(f"central / plain insert with 64 writers: {rate / plain:.2f} (goal: at least 0.45)")
        print(f"central / global hash chain with 64 writers: {rate / chained:.1f} (goal: at least 5)")


if __name__ == "__main__":
    main()
