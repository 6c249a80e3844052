"""How central ends when it is told to: what is under way is answered, what was acknowledged is there, and it does end."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.central.host import Host
from tests.central.test_limits import connected, until_closed
from tests.support.central import CentralProcess
from tests.support.postgres import PostgresServer
from tests.support.stored import stored, verdict_of
from tests.support.stream import Following
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOO_SLOW = b"POST /v1/audit/reservations HTTP/1.1\r\nHost: central\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\n{"


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Return a PostgreSQL that a test may make hang."""
    with PostgresServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def kept_in(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[CentralProcess, str]:
    """Return a central that does not run yet, and where its log is, for its owner."""
    if request.param == "sqlite":
        central = CentralProcess(tmp_path)
        return central, str(central.database)
    server: PostgresServer = request.getfixturevalue("server")
    return CentralProcess(tmp_path, server=server), server.owner_url


class Load:
    """Hosts that append as fast as they are answered, until central is gone; ``acknowledged`` are the numbers that came."""

    def __init__(self, central: CentralProcess, hosts: int = 3) -> None:
        self.acknowledged: list[int] = []
        self.refused: list[str] = []
        self._threads = [threading.Thread(target=self._append, args=(Host(central),)) for _ in range(hosts)]
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.acknowledged) > 50)

    def ended(self) -> None:
        """Wait until all have noticed."""
        for thread in self._threads:
            thread.join()

    def _append(self, host: Host) -> None:
        try:
            while True:
                answer = host.send(host.make("reserved")).json()
                if "n" in answer:
                    self.acknowledged.append(answer["n"])
                else:
                    self.refused.append(answer["code"])
        except httpx2.HTTPError:
            return


class Waiting:
    """Waits for news at the end of the log. ``answer`` is what comes."""

    def __init__(self, central: CentralProcess) -> None:
        self.answer: dict[str, Any] = {}
        self._client = central.client()
        self._client.timeout = httpx2.Timeout(60)
        self._thread = threading.Thread(target=self._wait)
        self._thread.start()

    def ended(self) -> dict[str, Any]:
        """Return what came: the status beside the body."""
        self._thread.join()
        self._client.close()
        return self.answer

    def _wait(self) -> None:
        answer = self._client.get("/v1/audit/log", params={"from": 2**40, "wait": 20})
        self.answer = {"status": answer.status_code, **answer.json()}


def slow(central: CentralProcess) -> socket.socket:
    """Return a connection with a request whose body does not come to its end."""
    client = connected(central)
    client.settimeout(60)
    client.sendall(TOO_SLOW % central.agent_tokens["server1"].encode())
    return client


def open_connections(central: CentralProcess) -> float:
    """Return how many connections central has."""
    with central.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("prism_vault_central_connections "))


def test_central_drains_when_it_is_told_to_end(kept_in):
    """At SIGTERM under load every request is answered or refused, what was acknowledged has its leaf, and the status is 0."""
    central, database = kept_in
    with central:
        load = Load(central)
        status = central.stop()
        load.ended()
    rows = stored(database)
    verdict = verdict_of(database)

    assert status == 0
    assert load.refused == []
    assert set(load.acknowledged) <= {row.n for row in rows}
    assert (verdict.fault, verdict.leaves) == (None, len(rows))
    assert not central.database.with_name("audit.db-wal").exists()


def test_whoever_waits_for_news_is_answered_at_the_end(kept_in):
    """A reader that waits for news gets an empty answer, streams their end, an unfinished request 503; the status is 0."""
    central, _ = kept_in
    with central, ExitStack() as open_:
        token = central.agent_tokens["server1"]
        streams = [open_.enter_context(Following(central, token)) for _ in range(3)]
        unfinished = open_.enter_context(slow(central))
        waiting = [Waiting(central) for _ in range(3)]
        wait_until(lambda: open_connections(central) >= 3 + 1 + 3 + 1)
        status = central.stop()
        answers = [each.ended() for each in waiting]
        wait_until(lambda: all(each.end for each in streams))
        refused = until_closed(unfinished)

    assert [(answer["status"], answer["rows"]) for answer in answers] == [(200, [])] * 3
    assert [each.end for each in streams] == ["ended"] * 3
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b'"code": "ending"' in refused
    assert status == 0


def test_a_database_that_hangs_does_not_keep_central_from_its_end(server, tmp_path):
    """With PostgreSQL hanging at SIGTERM central refuses what waits and ends by itself with 75; what it acknowledged is there."""
    with CentralProcess(tmp_path, server=server) as central:
        load = Load(central)
        stream = Following(central, central.agent_tokens["server1"])
        server.pause()
        try:
            status = central.stop()
        finally:
            server.resume()
        load.ended()
        with stream:
            wait_until(lambda: stream.end)
        told = "".join(central.log)
        central.start()
        Host(central).reserve()
    rows = {row.n for row in stored(server.owner_url)}

    assert status == 75
    assert load.refused == ["ending"] * 3
    assert '"event": "ended_unfinished"' in told
    assert set(load.acknowledged) <= rows
    assert verdict_of(server.owner_url).fault is None
