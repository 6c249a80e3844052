"""What is left of the log when central, or the database's server, is killed under load: all that was acknowledged (F30)."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from sqlalchemy import select

from prism_vault_agent.audit.event import digest, new_id
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import reading_engine
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import Frontier, leaf_hash
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.postgres import PostgresServer
from tests.support.soak import count
from tests.support.stored import verdict_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = {f"server{number}": ["*"] for number in range(1, 5)}


class Load:
    """Hosts that append as fast as they can, and send again what was not answered, until they are told to stop."""

    def __init__(self, central: CentralProcess) -> None:
        self.acknowledged: list[tuple[int, str]] = []
        self.sent: list[str] = []
        self._central = central
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in HOSTS]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self, events: int) -> None:
        """Wait until as many further events were acknowledged."""
        before = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) >= before + events, timeout=60)

    def stop(self) -> None:
        """Finish what is under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str) -> None:
        host = Host(self._central, name)
        while not self._stop.is_set():
            reservation = new_id()
            for kind in ("reserved", "success"):
                answer = self._until_answered(host, host.make(kind, reservation))
                self.acknowledged.append((answer["n"], answer["hash"]))
            self.sent.append(reservation)

    def _until_answered(self, host: Host, body: bytes) -> dict[str, Any]:
        """Send the same bytes until central says that it has them, as an agent does."""
        while True:
            try:
                answer = host.send(body)
            except httpx2.HTTPError:
                self._stop.wait(0.02)
                continue
            if answer.status_code in (200, 201):
                return dict(answer.json())
            assert answer.status_code == 503, answer.text
            self._stop.wait(0.02)


def check(central: CentralProcess, load: Load) -> None:
    """Hold the rows against what was acknowledged; recompute every chain and the tree of the newest checkpoint."""
    engine = reading_engine(central.setting("database"))
    with engine.connect() as connection:
        rows = connection.execute(select(schema.event).order_by(schema.event.c.n)).all()
        leaves = connection.execute(select(schema.leaf).order_by(schema.leaf.c.idx)).all()
        newest = connection.execute(select(schema.checkpoint).order_by(schema.checkpoint.c.size.desc()).limit(1)).one()
    engine.dispose()
    at = {row.n: row for row in rows}
    tree = Frontier()
    tree.extend([leaf.hash for leaf in leaves[: newest.size]])
    kinds = Counter((row.reservation_id.hex(), row.kind) for row in rows)

    assert [entry for entry in load.acknowledged if entry[0] not in at or digest(at[entry[0]].body) != entry[1]] == []
    assert [each for each in load.sent if kinds[each, "reserved"] != 1 or kinds[each, "success"] != 1] == []
    assert verdict_of(central.setting("database")).fault is None
    assert newest.size == len(leaves) == len(rows)
    assert all(leaf.hash == leaf_hash(leaf_data(leaf.n, at[leaf.n].received_at, at[leaf.n].body)) for leaf in leaves)
    assert tree.root() == newest.root


@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_when_central_is_killed(tmp_path: Path):
    """Central is killed under load again and again: acknowledged events are there once, chains and tree are whole."""
    with CentralProcess(tmp_path, agents=HOSTS) as central:
        load = Load(central)
        for _ in range(count(8, 300)):
            load.wait_for_more(40)
            central.kill()
            central.start()
        load.stop()
        wait_until(lambda: _all_sequenced(central))
        check(central, load)
        assert len(load.acknowledged) >= count(8, 300) * 40


@pytest.mark.tool("initdb")
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path):
    """PostgreSQL and all its processes are killed under load: central answers 503 meanwhile and goes on by itself afterwards."""
    (tmp_path / "server").mkdir()
    with PostgresServer(tmp_path / "server") as server, CentralProcess(tmp_path, agents=HOSTS, server=server) as central:
        load = Load(central)
        for _ in range(count(2, 12)):
            load.wait_for_more(count(200, 1000))
            server.kill()
            server.start()
        load.wait_for_more(50)
        load.stop()
        wait_until(lambda: _all_sequenced(central))
        check(central, load)


def _all_sequenced(central: CentralProcess) -> bool:
    """Tell whether the newest checkpoint is about every event."""
    engine = reading_engine(central.setting("database"))
    with engine.connect() as connection:
        size = connection.execute(select(schema.checkpoint.c.size).order_by(schema.checkpoint.c.size.desc()).limit(1)).scalar()
        events = len(connection.execute(select(schema.event.c.n)).all())
    engine.dispose()
    return size == events
