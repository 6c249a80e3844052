"""A central that takes no more of a host for a while (429): the agent rests as it is told, and nothing is released meanwhile."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.support import history
from tests.support.fault_proxy import Fault, FaultProxy, Seen, times, with_kind
from tests.support.stack import Stack, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOLD = "takes no more of this host"


def limited(seconds: int | str) -> Fault:
    """Return central's answer to who asks for more than its share."""
    body = b'{"code": "rate_limited", "status": 429}'
    head = f"HTTP/1.1 429 Too Many Requests\r\nContent-Length: {len(body)}\r\nRetry-After: {seconds}\r\n\r\n"
    return Fault("answer", raw=head.encode() + body)


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(central_lines='timeout = "3s"', reservation_ttl="15s") as made:
        yield made


def batches(proxy: FaultProxy, since: int, wanted: Callable[[Seen], bool]) -> list[Seen]:
    """Return the batches behind the first ``since`` requests that are wanted."""
    return [seen for seen in proxy.seen[since:] if wanted(seen)]


@pytest.mark.parametrize("kind", ["reserved", "success"])
def test_the_same_bytes_are_sent_again_when_the_time_is_up(stacked: Stack, kind: str) -> None:
    """A 429 at either step makes the agent wait for as long as it says, and send the same bytes: one row each, then the value."""
    before, since, reads = len(stacked.settle()), len(stacked.to_central.seen), len(stacked.to_openbao.seen)
    with stacked.to_central.failing(times(1, limited(2), with_kind(kind))):
        stacked.works()
    first, second = batches(stacked.to_central, since, with_kind(kind))
    (read,) = [seen for seen in stacked.to_openbao.seen[reads:] if is_read(seen)]
    stacked.settle()

    assert first.body == second.body
    assert second.at - first.at >= 2
    assert (read.at > second.at) == (kind == "reserved")
    assert history.kinds(stacked.rows(before)) == ["reserved", "success"]


def test_who_waits_too_long_is_told_in_one_line(stacked: Stack) -> None:
    """Execs whose time is up before central takes anything end with 75 and say why; central is asked once, not for each."""
    stacked.settle()
    since, reads = len(stacked.to_central.seen), stacked.reads
    with stacked.to_central.failing(times(1, limited(12), with_kind("reserved"))):
        for _ in range(2):
            stacked.fails(75, TOLD, "[limits]")
        asked = [seen for seen in stacked.to_central.seen[since:] if seen.path != "/v1/signals"]
        assert len(batches(stacked.to_central, since, lambda seen: seen.method == "POST")) == 1
        assert asked[-1].kinds == ["reserved"]
        assert stacked.reads == reads
        assert TOLD in stacked.agent.status()["central"]["last_error"]
    wait_until(lambda: stacked.exec().returncode == 0, 60)


def test_a_rest_is_bounded_and_never_none(stacked: Stack) -> None:
    """What is no number of seconds is one second, and more than a minute is a minute: an agent is never stopped for good."""
    since = len(stacked.to_central.seen)
    with stacked.to_central.failing(times(1, limited("tomorrow"), with_kind("reserved"))):
        stacked.works()
    tries = batches(stacked.to_central, since, with_kind("reserved"))

    assert [seen.body for seen in tries] == [tries[0].body] * 2
    assert tries[1].at - tries[0].at >= 1


def test_another_replica_is_not_asked_instead(stacked: Stack) -> None:
    """With a second replica at hand, the agent stays: the limit is one for all of them."""
    with FaultProxy(stacked.to_central.port) as one, FaultProxy(stacked.to_central.port) as two:
        lines = f'replicas = ["{two.address}"]\ntimeout = "3s"'
        with stacked.second(central_url=one.address, central_lines=lines) as agent:
            wait_until(lambda: agent.status()["ready"])
            with one.failing(times(1, limited(2), with_kind("reserved"))):
                done = agent.exec("--scope", "web", "--", "/bin/true")
        assert done.returncode == 0, done
        assert len(batches(one, 0, with_kind("reserved"))) == 2
        assert two.seen == []


@pytest.mark.parametrize(("seconds", "status"), [(2, 0), (50, 75)])
def test_direct_rests_too(stacked: Stack, seconds: int, status: int) -> None:
    """``exec --direct`` waits and sends the same bytes; where its time would be up before, it says so and ends with 75."""
    since = len(stacked.to_central.seen)
    with stacked.to_central.failing(times(1, limited(seconds), with_kind("reserved"))):
        done = stacked.direct("--", "/bin/true")
    tries = batches(stacked.to_central, since, with_kind("reserved"))

    assert done.returncode == status, done
    assert [seen.body for seen in tries] == [tries[0].body] * (1 if status else 2)
    assert all(later.at - earlier.at >= seconds for earlier, later in pairwise(tries))
    assert (TOLD in done.stderr) == bool(status)
    assert done.stderr.count("\n") == bool(status)


def test_a_real_limit_is_kept_to() -> None:
    """With a central that gives one request each two seconds, an exec takes its time, and never asks before it may."""
    with stack(central_lines='timeout = "40s"', reservation_ttl="60s", log_key=False) as made:
        made.central.set(limits={"rate": 0.5, "burst": 256})
        made.central.restart()
        wait_until(lambda: made.agent.status()["signals"]["connected"], 30)
        with made.central.client(made.central.agent_tokens["server1"]) as greedy:
            while greedy.get("/v1/audit/head").status_code == 200:
                pass
        done = made.exec("--timeout", "60s")
        assert (done.returncode, done.stdout) == (0, f"ran {made.canary}\n"), (done, made.agent.log[-3000:])
        tries = [seen for seen in made.to_central.seen if with_kind("reserved")(seen)]
        assert all(later.at - earlier.at >= 1 for earlier, later in pairwise(tries))
        assert 2 <= len(tries) <= 4
        assert len({seen.body for seen in tries}) == 1
        made.central.set(limits={"rate": 5_000, "burst": 20_000})
        made.central.restart()
