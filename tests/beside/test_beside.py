"""What is left after a failure, of us and of OpenBao's own agent at its fastest, beside each other against one OpenBao.

Of ours the tests demand that it is nothing, or what the documents say. Of theirs they demand that it had the secret to leave.
"""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.beside import failures
from tests.beside.contenders import GRACE, STALE, Ours, Theirs, place
from tests.beside.latency import push, reached, to_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.beside.contenders import Place
    from tests.beside.failures import Left

# What each has: the command with its daemon, and the file.
ALL = (2, 1)


@pytest.fixture(scope="module")
def at() -> Iterator[Place]:
    """One OpenBao, and two agents of ours."""
    with place(watch=2.0) as made:
        yield made


def nothing(left: Left | None, within: float) -> None:
    """Fail unless nothing was left in time."""
    assert left is not None and left.nothing and left.seconds < within + failures.LATE, left


def test_a_written_value_reaches_file_and_new_child_by_an_order_by_a_poll_and_with_their_agent(at):
    """A new value reaches our file and new child by central's order before any poll, others of ours by their poll, and theirs."""
    with Ours(at, poll="60s") as pushed, Ours(at, poll="1s") as polled, Theirs(at) as theirs:
        assert max(reached(partial(push, at, pushed), to_file(pushed), pushed.told)) < failures.LATE
        reached(polled.write, to_file(polled), polled.told)
        reached(theirs.write, to_file(theirs), theirs.told)


def test_a_deleted_secret_leaves_nothing(at):
    """Where a secret is deleted our processes, a daemon among them, and our file are gone within a poll and the grace."""
    found = failures.deleted(at)
    nothing(found.shipped, failures.NOTICED)
    nothing(found.strict, failures.NOTICED)


def test_a_host_that_is_cut_off_keeps_nothing(at):
    """With ``on_failure = "clear"`` a host whose role is gone and whose token is revoked has nothing left after a poll."""
    found = failures.cut_off(at)
    nothing(found.strict, failures.NOTICED)
    assert found.shipped[:2] == ALL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_above_the_command_takes_it_along(at, number):
    """SIGTERM or SIGKILL to ``exec --supervise`` leaves no process of it; theirs leaves the daemon at least."""
    found = failures.ended(at, number)
    nothing(found.shipped, 0.1)
    assert found.theirs.processes >= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_leaves_nothing_or_all_for_the_next_one(at, number):
    """However an agent ends: with ``on_end = "clear"`` it leaves nothing; else all, and the next one what was not withdrawn."""
    ended, back = failures.agent_ended(at, number)
    nothing(ended.strict, GRACE)
    assert ended.shipped[:2] == ALL
    nothing(back.shipped, failures.NOTICED)


def test_a_command_that_ignores_sigterm_is_killed_after_its_grace(at):
    """A revocation gives a command that ignores SIGTERM its grace, and no more."""
    found = failures.deaf(at)
    assert found.seconds >= GRACE
    nothing(found, GRACE + 0.5)


def test_without_a_server_what_is_bounded_goes_and_a_revocation_ends_the_rest(at):
    """While the server is away a scope's bound takes back what it bounds; a revocation by central needs no server."""
    down, revoked = failures.server_down(at)
    nothing(down.strict, STALE + GRACE)
    assert down.shipped[:2] == ALL
    nothing(revoked.shipped, GRACE)
