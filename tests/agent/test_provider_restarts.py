"""A provider that is sealed, stopped and started anew, with its secrets on disk: what the agent does meanwhile and afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support import history
from tests.support.fault_proxy import Fault, Seen
from tests.support.stack import Stack, is_login, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(durable=True, vault='timeout = "30s"', reservation_ttl="60s") as made:
        yield made


def _ready(made: Stack) -> bool:
    return bool(made.agent.status()["ready"])


def test_f4_a_sealed_provider(stacked: Stack) -> None:
    """A sealed OpenBao is told as sealed, the agent is not ready until it is unsealed, and then exec works as before."""
    stacked.works()
    logins = stacked.to_openbao.count(is_login)
    stacked.openbao.seal()
    try:
        stacked.fails(75, "is sealed", "unseal it")
        assert not _ready(stacked)
        assert "sealed" in stacked.agent.status()["vault"]["last_error"]
    finally:
        stacked.openbao.unseal()
    wait_until(lambda: _ready(stacked), 30)
    stacked.works()
    assert stacked.to_openbao.count(is_login) == logins


@pytest.mark.parametrize("answered", [True, False])
def test_f18_a_restart_between_the_login_and_the_read(stacked: Stack, *, answered: bool) -> None:
    """A server that restarts while it is asked costs another request, not another reservation."""
    before = len(stacked.settle())
    asked, restarted = threading.Event(), threading.Event()

    def hold(seen: Seen) -> Fault | None:
        if not is_read(seen) or asked.is_set():
            return None
        asked.set()
        return Fault("answer" if answered else "reset", forwarded=answered, until=restarted)

    with stacked.to_openbao.failing(hold), ThreadPoolExecutor() as pool:
        running = pool.submit(stacked.exec, "--timeout", "60s")
        try:
            assert asked.wait(30)
            stacked.openbao.restart()
        finally:
            restarted.set()
        done = running.result()
    assert (done.returncode, done.stdout) == (0, f"ran {stacked.canary}\n"), done
    stacked.settle()
    assert history.kinds(stacked.rows(before)) == ["reserved", "success"]


def test_f18_a_restart_while_nothing_is_asked(stacked: Stack) -> None:
    """Workers that were connected to a server which has since restarted connect anew."""
    stacked.openbao.restart()
    for _ in range(6):
        stacked.works()


def test_f1_a_provider_that_is_down_when_the_agent_starts(stacked: Stack) -> None:
    """The agent serves without a login, denies with the reason, and logs in when the provider is there."""
    stacked.agent.stop()
    stacked.openbao.stop()
    try:
        stacked.agent.start(ready=False)
        wait_until(lambda: stacked.agent.status()["vault"]["last_error"], 30)
        stacked.fails(75, "the agent is not logged in", options=("--timeout", "2s"))
    finally:
        stacked.openbao.restart()
    wait_until(lambda: _ready(stacked), 60)
    stacked.works()
