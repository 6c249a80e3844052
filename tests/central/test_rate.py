"""Shares of central: what one host or operator asks beyond its own is refused, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.access.rate import MOST_AT_ONCE, RateLimited, Rates, Turns
from tests.central.host import Host
from tests.support.central import CentralProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = Identity("a", "agent", "server1", frozenset())


@given(asks=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 20)), max_size=50))
def test_a_bucket_gives_what_it_was_filled_with(asks):
    """Whatever is asked when, what is given up to any time is at most the burst and the rate times that time."""
    now = [0.0]
    rates, given_so_far = Rates(2.0, 30, lambda: now[0]), 0
    for pause, amount in asks:
        now[0] += pause
        try:
            rates.take(HOST, amount)
            given_so_far += amount
        except RateLimited as error:
            wait = error.seconds
            assert wait > 0
            now[0] += wait + 1e-6
            rates.take(HOST, amount)  # what was told is enough
            given_so_far += amount
        assert given_so_far <= 30 + 2.0 * now[0] + 1e-3


def test_a_host_has_one_bucket_whatever_its_credential():
    """Two credentials of a host share its bucket; another host and an operator have their own."""
    rates = Rates(0.001, 10)
    rates.take(HOST, 10)
    with pytest.raises(RateLimited):
        rates.take(Identity("b", "agent", "server1", frozenset(), by="stored_token"), 1)
    rates.take(Identity("a", "agent", "server2", frozenset()), 10)
    rates.take(Identity("a", "operator", "", frozenset()), 10)


def test_what_is_told_is_enough_for_the_whole_request():
    """A request that is taken in two parts and comes again when it was told to is not refused for its second part again."""
    now = [0.0]
    rates = Rates(0.5, 256, lambda: now[0])
    rates.take(HOST, 256)
    now[0] += 2.0
    rates.take(HOST, 1)
    with pytest.raises(RateLimited) as refused:
        rates.take(HOST, 9, again=10)
    now[0] += refused.value.seconds
    rates.take(HOST, 1)
    rates.take(HOST, 9, again=10)


def test_a_turn_is_one_batch_of_a_host():
    """Of one host no more than a batch is at the writer, in order; another host comes at once; too many waiting are refused."""

    async def script() -> None:
        turns, order, gates = Turns(), deque[str](), {}

        async def work(name: str, host: str, amount: int) -> None:
            gates[name] = asyncio.Event()
            async with turns.turn(host, amount):
                order.append(name)
                await gates[name].wait()

        tasks = [asyncio.create_task(work(f"noisy-{number}", "noisy", MOST_AT_ONCE)) for number in range(9)]
        await asyncio.sleep(0)
        quiet = asyncio.create_task(work("quiet", "quiet", 1))
        await asyncio.sleep(0)
        assert list(order) == ["noisy-0", "quiet"]
        with pytest.raises(RateLimited):
            await work("too-many", "noisy", 1)
        tasks[1].cancel()
        await asyncio.sleep(0)
        for number in (0, *range(2, 9)):
            assert order[-1] in (f"noisy-{number}", "quiet")
            gates[f"noisy-{number}"].set()
            await tasks[number]
            await asyncio.sleep(0)
        gates["quiet"].set()
        await quiet
        assert list(order) == ["noisy-0", "quiet", *(f"noisy-{number}" for number in range(2, 9))]
        assert turns._lines == {}

    asyncio.run(script())


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CentralProcess]:
    """Return a central with small shares."""
    with CentralProcess(
        tmp_path_factory.mktemp("narrow"),
        agents={"noisy": ["*"], "quiet": ["*"]},
        more={"limits": {"rate": 1.0, "burst": 300}},
    ) as running:
        yield running


def test_one_who_floods_is_refused_and_others_are_not(narrow):
    """A host that floods gets 429 with Retry-After, and nothing of those requests is on the log; another one does not."""
    statuses: list[int] = []
    refused: list[str] = []
    done = threading.Event()

    def flood() -> None:
        host = Host(narrow, "noisy")
        while not done.is_set():
            answer = host.send(host.make("denied", new_id()))
            statuses.append(answer.status_code)
            if answer.status_code == 429:
                refused.append(answer.headers["retry-after"])

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    quiet = Host(narrow, "quiet")
    calm: list[int] = []
    while len(calm) < 50 or not refused:
        calm.append(quiet.send(quiet.make("denied", new_id())).status_code)
        if len(calm) >= 250:
            break
    done.set()
    for thread in threads:
        thread.join()

    assert set(calm) == {201}
    assert refused
    assert all(int(seconds) >= 1 for seconds in refused)
    assert len(narrow.events(host="noisy")) == statuses.count(201)
