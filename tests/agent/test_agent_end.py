"""What is left when the agent ends: its runs, and nothing of its own."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from tests.agent.asking import children, command_line, eventually, pid_of, rows
from tests.support.agent import AgentProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_f93_runs_outlive_the_agent(make_agent, central, end):
    """F93: when the agent stops, crashes or is upgraded its runs live on, nothing is read again, and the next agent has them."""
    agent = make_agent().start()
    child = agent.spawn("--scope", "web", "--", "sleep", "1000")
    audit_id = wait_until(lambda: agent.status()["runs"])[0]["id"]
    eventually(lambda: [row["kind"] for row in rows(central, audit_id)] == ["reserved", "success"])
    process = pid_of(agent)
    reserved = len(central.events(kind="reserved"))
    getattr(agent, end)()
    eventually(lambda: not command_line(process))
    assert child.poll() is None
    agent.start()
    assert [run["id"] for run in agent.status()["runs"]] == [audit_id]
    assert agent.exec("--scope", "web", "--", "true").returncode == 0
    assert len(central.events(kind="reserved")) == reserved + 1
    assert [row["kind"] for row in rows(central, audit_id)] == ["reserved", "success"]
    assert child.poll() is None
    child.kill()
    child.communicate(timeout=60)


def test_no_process_of_the_agent_outlives_it(make_agent):
    """However the agent ends, its warm parent and its workers end with it."""
    for end in ("stop", "kill"):
        agent = make_agent().start()
        eventually(functools.partial(all_there, agent))
        ours = children(pid_of(agent))
        getattr(agent, end)()
        eventually(functools.partial(gone, ours))


def all_there(agent: AgentProcess) -> bool:
    """Tell whether the warm parent and four workers are there."""
    return len(children(pid_of(agent))) == 5


def gone(pids: Iterable[int]) -> bool:
    """Tell whether none of these processes is there any more."""
    return not any(command_line(pid) for pid in pids)
