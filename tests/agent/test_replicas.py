"""Two replicas of central on one PostgreSQL: one is killed under load, agents fail over, nothing is lost or doubled."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import history
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.central import CentralProcess
from tests.support.openbao import OpenBao
from tests.support.postgres import PostgresServer
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

AGENTS = 2
CANARY = secrets.token_hex(16)


class Site:
    """Two replicas that share database, key and tokens, and agents, each of which begins with another one of them."""

    def __init__(self, directory: Path, server: PostgresServer, openbao: OpenBao) -> None:
        for name in ("one", "two"):
            (directory / name).mkdir(mode=0o700)
        one = CentralProcess(directory / "one", server=server, reservation_ttl="5s")
        self.replicas = (one, one.replica(directory / "two"))
        self.directory = directory
        self.openbao = openbao
        self.agents: list[AgentProcess] = []

    def start(self) -> None:
        """Start the replicas and then the agents."""
        for replica in self.replicas:
            replica.start()
        for number in range(AGENTS):
            directory = self.directory / f"agent{number}"
            directory.mkdir(mode=0o700)
            first, second = self.replicas[number % 2], self.replicas[1 - number % 2]
            lines = f'replicas = ["{second.url}"]\ntimeout = "2s"'
            agent = AgentProcess(directory, self.openbao, first, role=f"replicas{number}", central_lines=lines)
            agent.scope("web", {"CANARY": "vault://secret/web#canary"})
            self.agents.append(agent)
            agent.start()

    def stop(self) -> None:
        """End everything."""
        for agent in self.agents:
            agent.kill()
        for replica in self.replicas:
            replica.stop()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp"))
    for name in ("pg", "bao"):
        (directory / name).mkdir(mode=0o700)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def server(place: Path) -> Iterator[PostgresServer]:
    """A running PostgreSQL."""
    with PostgresServer(place / "pg") as running:
        yield running


@pytest.fixture
def site(place: Path, server: PostgresServer) -> Iterator[Site]:
    """Two replicas on it, and agents."""
    with OpenBao(place / "bao") as openbao:
        openbao.kv_put("secret/web", {"canary": CANARY})
        made = Site(place, server, openbao)
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.mark.soak
def test_two_replicas_on_one_postgresql(site: Site) -> None:
    """While one replica after the other is killed under load, no exec fails, and each has one row of everything on one log."""
    done: list[subprocess.CompletedProcess[str]] = []
    enough = threading.Event()

    def loop(agent: AgentProcess) -> None:
        while not enough.is_set():
            done.append(agent.exec("--scope", "web", "--timeout", "30s", "--", "/bin/sh", "-c", 'echo "ran $CANARY"'))

    def more(number: int) -> None:
        goal = len(done) + number
        wait_until(lambda: len(done) >= goal, 60)

    with ThreadPoolExecutor(2 * AGENTS) as pool:
        running = [pool.submit(loop, agent) for agent in site.agents * 2]
        try:
            for kill in range(count(2, 20)):
                more(6)
                replica = site.replicas[kill % 2]
                replica.kill()
                more(6)
                replica.start()
            more(6)
        finally:
            enough.set()
        for each in running:
            each.result()
    assert [(each.returncode, each.stdout, each.stderr) for each in done] == [(0, f"ran {CANARY}\n", "")] * len(done)
    for agent in site.agents:
        wait_until(lambda agent=agent: agent.status()["runs"] == [] and agent.status()["central"]["queued"] == 0, 30)  # type: ignore[misc]
        assert agent.log.count("audit.chain_broken") == 0
        assert agent.log.count("receipt.wrong") == 0
    one = site.replicas[0]
    wait_until(lambda: not history.open_reservations(one.events()), 30)
    events = one.events()
    history.check(events)
    assert len(history.released(events)) == len(done)
    assert [event["event_id"] for event in events] == [event["event_id"] for event in site.replicas[1].events()]
    for agent in site.agents:
        wait_until(lambda agent=agent: agent.status()["log"]["state"] == "proved", 30)  # type: ignore[misc]
    environ = {"PRISM_VAULT_CENTRAL_URL": one.url, "PRISM_VAULT_OPERATOR_TOKEN": one.operator_token}
    verified = subprocess.run([LAUNCHER, "audit", "verify"], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert verified.returncode == 0, verified


def test_a_replica_that_is_down_is_passed_over_by_direct_too(site: Site) -> None:
    """``exec --direct`` and an agent that starts find the replica that is up, whichever is named first."""
    site.replicas[0].kill()
    agent = site.agents[0]
    environ = agent.environment() | {"PRISM_VAULT_SOCKET": "/nonexistent"}
    words = [LAUNCHER, "exec", "--direct", "--config", str(agent.config), "--scope", "web", "--", "/bin/echo", "ran"]
    done = subprocess.run(words, env=environ, text=True, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done
    agent.stop()
    agent.start()
    done = agent.exec("--scope", "web", "--", "/bin/echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n"), done
