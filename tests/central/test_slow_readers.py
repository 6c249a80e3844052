"""Streams in small: heartbeats, readers that do not read, and credentials that end."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.access.identity import Identity, Unauthenticated
from prism_vault_agent.central.http.signals import SignalStreams
from prism_vault_agent.central.log.feed import Feed
from prism_vault_agent.central.log.signals import CHANNEL, signal
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.storage.engines import migrate, reading_engine, writing_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from prism_vault_agent.central.log.transaction import Transaction

EVERYONE = Identity("x", "agent", "server1", frozenset({"prism"}))


class Log:
    """A log with signals, and a feed of it that runs."""

    def __init__(self, database: str) -> None:
        self.store = Store(writing_engine(database))
        self.engine = reading_engine(database)
        self.feed = Feed(self.engine, partial(asyncio.sleep, 0))

    def tell(self, count: int, kind: Any = "rotation", project: str = "prism") -> None:
        """Make signals, and have the feed look."""

        def work(transaction: Transaction) -> None:
            row = transaction.insert_own({"kind": "admin", "reservation": new_id()})
            for _ in range(count):
                signal(transaction, kind, {"projects": [project], "target": {"scope": "x" * 200}}, row.n)

        self.store.run([work])
        self.feed.told(CHANNEL)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the feed."""
        task = asyncio.create_task(self.feed.run(lambda _signal: None))
        await self.feed.last()
        yield
        task.cancel()


@pytest.fixture
def log(tmp_path) -> Iterator[Log]:
    """Return an empty log."""
    database = str(tmp_path / "audit" / "audit.db")
    migrate(database)
    made = Log(database)
    yield made
    made.store.close()
    made.engine.dispose()


class Reader:
    """One who follows; while ``reading`` is not set, it takes nothing. ``got`` is what it has taken."""

    def __init__(self, log: Log, *, heartbeat: float = 60.0, admit: Any = None) -> None:
        self.got = b""
        self.reading = asyncio.Event()
        self.reading.set()
        self.ended = False
        self._changed = asyncio.Event()
        scope = {"state": {"identity": EVERYONE}, "query_string": b"after=0", "headers": []}
        streams = SignalStreams(log.feed, heartbeat)
        self.task = asyncio.create_task(streams.serve(scope, self._receive, self._send, admit or self._admit))

    async def wait_for(self, text: bytes, times: int = 1) -> None:
        """Wait until it has got ``text`` so often."""
        async with asyncio.timeout(20):
            while self.got.count(text) < times:
                self._changed.clear()
                await self._changed.wait()

    async def _receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Any) -> None:
        await self.reading.wait()
        self.got += message.get("body", b"")
        self.ended = message["type"] == "http.response.body" and not message.get("more_body")
        self._changed.set()

    async def _admit(self, _scope: object) -> Identity:
        return EVERYONE


def test_a_slow_reader_holds_nobody_back_and_misses_nothing(log):
    """While one does not read, others are told all; when it reads on, it is told all too, from the rows, in order."""

    async def scenario() -> tuple[bytes, bytes]:
        async with log.running():
            slow, quick = Reader(log), Reader(log)
            await slow.wait_for(b"id: 0")
            slow.reading.clear()
            for _ in range(3):
                await asyncio.to_thread(log.tell, 500)
            await quick.wait_for(b"event: rotation", 1500)
            before = slow.got
            slow.reading.set()
            await slow.wait_for(b"event: rotation", 1500)
            assert before.count(b"event: ") == 0
            log.feed.end()
            await asyncio.gather(slow.task, quick.task)
            return slow.got, quick.got

    got = asyncio.run(scenario())
    expected = [b"id: %d" % number for number in range(1501)]

    for each in got:
        assert [line for line in each.splitlines() if line.startswith(b"id: ")] == expected


def test_a_silent_stream_says_that_it_lives(log):
    """A stream without news sends comments; what does not concern the reader moves its id and is not told."""

    async def scenario() -> bytes:
        async with log.running():
            reader = Reader(log, heartbeat=0.05)
            await reader.wait_for(b":\n\n", 3)
            await asyncio.to_thread(log.tell, 2, "rotation", "other")
            await reader.wait_for(b":\nid: 2\n\n")
            log.feed.end()
            await reader.task
            assert reader.ended
            return reader.got

    assert b"event" not in asyncio.run(scenario())


@pytest.mark.parametrize(("reason", "ends"), [("unknown_token", True), ("token_expired", False)])
def test_a_credential_that_was_taken_away_ends_its_stream(log, reason, ends):
    """After a change of policies or tokens the credential is looked at: one that is gone ends the stream, time alone does not."""

    async def refuse(_scope: object) -> Identity:
        raise Unauthenticated(reason)

    async def scenario() -> bool:
        async with log.running():
            reader = Reader(log, admit=refuse)
            await reader.wait_for(b"id: 0")
            await asyncio.to_thread(log.tell, 1, "policy")
            if ends:
                async with asyncio.timeout(10):
                    await reader.task
                return reader.ended
            await reader.wait_for(b"event: policy")
            await asyncio.to_thread(log.tell, 1)
            await reader.wait_for(b"event: rotation")
            log.feed.end()
            await reader.task
            return False

    assert asyncio.run(scenario()) is ends
