"""Who asks for secrets is put into a control group while the log is asked, and is where it was if it is given nothing."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.fault_proxy import Fault, always, with_kind
from tests.support.groups import place_of
from tests.support.stack import Stack, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCOPE = ("--scope", "web", "--timeout", "30s", "--", "/bin/sleep", "600")

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def made() -> Iterator[Stack]:
    """Run a stack."""
    with stack() as running:
        yield running


def own_group(pid: int) -> Path:
    """Return the group of a process that was made for it, once it is there."""
    wait_until(lambda: place_of(pid).parent == place_of("self"))
    return place_of(pid)


def test_the_group_is_made_while_the_log_is_asked(made):
    """The kernel takes its time for that beside the reservation, the read and the success; nothing is read before the first."""
    go = threading.Event()
    with made.to_central.failing(always(Fault("answer", forwarded=True, until=go), with_kind("reserved"))):
        process = made.agent.spawn(*SCOPE)
        try:
            group = own_group(process.pid)
            assert not made.to_openbao.count(is_read)
            go.set()
            wait_until(lambda: made.agent.status()["runs"])
            assert own_group(process.pid) == group
        finally:
            go.set()
            process.kill()
            process.communicate()
    wait_until(lambda: not group.exists())


def test_who_is_given_nothing_is_where_it_was(made):
    """Where the log does not take the reservation the caller leaves its group before it is told so, and the group is gone."""
    refusal = Fault("answer", status=403)
    with made.to_central.failing(always(refusal, with_kind("reserved"))):
        process = made.agent.spawn("--scope", "web", "--timeout", "3s", "--", "/bin/true")
        group = own_group(process.pid)
        assert process.wait(30) not in (0, -signal.SIGKILL)
        process.communicate()
    assert not group.exists()
