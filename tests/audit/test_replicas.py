"""Several replicas of central: the one in use until it fails, then the next one with the same bytes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.audit.http import CentralHttp
from prism_vault_agent.audit.replicas import Replicas
from prism_vault_agent.config.settings import CentralSettings
from prism_vault_agent.errors import AuditUnavailable
from tests.support.fake_server import FakeServer, always, answer, reset

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator

EVENT = b'{"event_id":"1"}'
TAKEN = answer(json.dumps({"results": [{"status": 201, "appended": True, "n": 1}]}).encode())
BUSY = answer(b"{}", "503 Service Unavailable", "Retry-After: 1")
REFUSED = answer(b"{}", "401 Unauthorized")


class Token:
    """A credential."""

    def __init__(self) -> None:
        self.refusals = 0

    async def get(self) -> str:
        """Return it."""
        return "t"

    def refused(self) -> None:
        """Count."""
        self.refusals += 1


def _hang(connection: socket.socket, _request: bytes) -> bool:
    return bool(connection.recv(65_536))


@pytest.fixture
def good() -> Iterator[FakeServer]:
    with FakeServer(always(TAKEN)) as server:
        yield server


def _settings(*urls: str) -> CentralSettings:
    return CentralSettings(urls[0], replicas=urls[1:])


def _play(work: Callable[[CentralHttp], Awaitable[None]], *urls: str, token: Token | None = None) -> None:
    async def play() -> None:
        central = CentralHttp(Replicas(_settings(*urls)), token or Token(), 0.3)
        try:
            await work(central)
        finally:
            await central.close()

    asyncio.run(play())


@pytest.mark.parametrize("fails", [reset, _hang, always(BUSY)], ids=["reset", "hang", "503"])
def test_a_replica_that_fails_is_left_for_the_next_with_the_same_bytes(good: FakeServer, fails) -> None:
    """Where the replica in use does not answer, or says 503, the next one gets the same bytes, and stays in use."""

    async def work(central: CentralHttp) -> None:
        for _ in range(3):
            assert (await central.post([EVENT]))[0]["n"] == 1

    with FakeServer(fails) as bad:
        _play(work, bad.address, good.address)
        assert len(bad.requests) == 1
        body = bad.received.partition(b"\r\n\r\n")[2]
        assert len(good.requests) == 3
        assert body in (b"", good.received.partition(b"\r\n\r\n")[2].partition(b"POST")[0])


def test_an_address_at_which_nobody_listens_is_left(good: FakeServer) -> None:
    """A replica that is down costs nothing but the attempt."""
    with FakeServer(reset) as gone:
        pass

    async def work(central: CentralHttp) -> None:
        begun = time.monotonic()
        assert (await central.post([EVENT]))[0]["n"] == 1
        assert time.monotonic() - begun < 0.3

    _play(work, gone.address, good.address)


def test_where_no_replica_answers_the_failure_is_that_of_the_last() -> None:
    """When each was asked once, what waits is told; the next attempt begins with the next replica, not always with the first."""

    async def work(central: CentralHttp) -> None:
        for _ in range(2):
            with pytest.raises(AuditUnavailable, match="central answered with status 503"):
                await central.post([EVENT])

    with FakeServer(always(BUSY)) as one, FakeServer(always(BUSY)) as two:
        _play(work, one.address, two.address)
        assert (len(one.requests), len(two.requests)) == (2, 2)


def test_a_refused_credential_is_no_reason_to_ask_another_replica(good: FakeServer) -> None:
    """401 is an answer: the credential is had anew, and no other replica is asked in its place."""
    token = Token()

    async def work(central: CentralHttp) -> None:
        with pytest.raises(AuditUnavailable, match="401"):
            await central.post([EVENT])

    with FakeServer(always(REFUSED)) as strict:
        _play(work, strict.address, good.address, token=token)
    assert token.refusals == 1
    assert good.requests == []


def test_what_one_connection_learns_holds_for_all(good: FakeServer) -> None:
    """Connections share what is known: where one has found a replica away, the others do not try it again."""

    async def play() -> None:
        replicas = Replicas(_settings(bad.address, good.address))
        one, two = (CentralHttp(replicas, Token(), 0.3) for _ in range(2))
        await one.post([EVENT])
        assert (await two.get("/v1/audit/checkpoint"))[0] == 200
        await one.close()
        await two.close()

    with FakeServer(reset) as bad:
        asyncio.run(play())
        assert len(bad.requests) == 1


def test_only_who_found_a_replica_failing_moves_on() -> None:
    """Two connections that see the same replica fail move on by one, not by two."""
    replicas = Replicas(_settings("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"))
    first = replicas.current
    replicas.failed(first)
    replicas.failed(first)
    assert replicas.current.port == 2
    replicas.failed(replicas.current)
    replicas.failed(replicas.current)
    assert replicas.current is first
