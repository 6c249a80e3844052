"""The agent is the third who looks after a supervised command: where supervisor and lifeline are gone it ends what is left."""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.agent.asking import eventually, rows
from tests.supervise.supervised import PYTHON, Marked, children, stopped
from tests.supervise.test_killed import PROCESSES, STUBBORN
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.as_user import NOBODY, prefix
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WWW_DATA = 33
BINDING = {"URL": "vault://secret/web#url"}

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def agent(place, openbao, central) -> Iterator[AgentProcess]:
    """Root's agent, which everybody may ask."""
    directory = place / "guards"
    directory.mkdir()
    running = AgentProcess(directory, openbao, central, agent='socket_mode = "0666"')
    mine = [{"kind": "operator", "uid": uid} for uid in (0, NOBODY)]
    running.scope("guarded", BINDING, grace="1h", callers=mine)
    try:
        yield running.start()
    finally:
        running.kill()


def started(agent: AgentProcess, marked: Marked) -> subprocess.Popen[str]:
    """Start a supervised command of ten processes that ignore what can be ignored; return when all are there."""
    words = ("--timeout", "60s", "--scope", "guarded", "--run-ref", marked.word, "--supervise", "--", *PYTHON, STUBBORN)
    # In a session of its own: the kernel hangs up a process group that is left orphaned with somebody stopped, ours included.
    child = agent.spawn(*words, env=marked.env, start_new_session=True)
    assert child.stdout is not None and len(child.stdout.read(PROCESSES)) == PROCESSES
    wait_until(lambda: len(marked.alive()) == PROCESSES + 2)
    # The command may run before the agent has heard of its worker that all was delivered.
    wait_until(lambda: marked.word in [run["run_ref"] for run in agent.status()["runs"]])
    return child


def both_killed(child: subprocess.Popen[str]) -> None:
    """Kill supervisor and lifeline so that neither sees the other's end."""
    (lifeline,) = children(child.pid)
    for pid in (child.pid, lifeline):
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: stopped(pid))  # type: ignore[misc]
    for pid in (lifeline, child.pid):  # the other way round the kernel continues the lifeline, which ends the tree
        os.kill(pid, signal.SIGKILL)


def finished(child: subprocess.Popen[str]) -> None:
    """Reap a child, whose pipes others may have."""
    for pipe in (child.stdout, child.stderr):
        assert pipe is not None
        pipe.close()
    child.wait(60)


def test_f68_supervisor_and_lifeline_killed_at_once(agent, central):
    """F68: where both are killed at the same moment the agent ends the whole tree, and records the end of the run."""
    slowest, survivors, rounds = 0.0, 0, count(2, 10)
    for _ in range(rounds):
        marked = Marked()
        child = started(agent, marked)
        (run,) = [run for run in agent.status()["runs"] if run["run_ref"] == marked.word]
        ends = [os.pidfd_open(pid) for pid in marked.alive()]
        both_killed(child)
        begun = time.monotonic()
        for end in ends:
            assert select.select([end], [], [], 30)[0]
            os.close(end)
        slowest = max(slowest, time.monotonic() - begun)
        survivors += len(marked.alive())
        finished(child)
        eventually(lambda run=run: rows(central, run["id"])[-1]["fields"].get("reason") == "exited")  # type: ignore[misc]
    print(f"{rounds} supervisors killed with their lifelines: survivors {survivors}, slowest {slowest * 1000:.1f} ms")
    assert survivors == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_next_agent_guards_it_too(agent, when):
    """Also an agent that comes back ends what both have left, whether they are killed before or after."""
    marked = Marked()
    child = started(agent, marked)
    agent.kill()
    if when == "before":
        both_killed(child)
        assert len(marked.alive()) >= PROCESSES
    agent.start()
    if when == "after":
        assert len(marked.alive()) == PROCESSES + 2
        both_killed(child)
    marked.wait_gone()
    finished(child)


def test_one_of_them_is_enough(agent):
    """While the lifeline lives the agent leaves the end to it: it ends what is left by itself only where both are gone."""
    before, marked = agent.log.count('"run.unguarded"'), Marked()
    child = started(agent, marked)
    child.kill()
    marked.wait_gone()
    finished(child)
    wait_until(lambda: all(run["run_ref"] != marked.word for run in agent.status()["runs"]))
    assert agent.log.count('"run.unguarded"') == before


@pytest.fixture
def changing(place) -> Iterator[Path]:
    """A program of root's that anybody may start, and that then runs as another user: setuid, as sudo is."""
    program = place / "changing"
    shutil.copy("/usr/bin/setpriv", program)
    program.chmod(0o755 | stat.S_ISUID)
    yield program
    program.unlink()


def test_another_users_child_does_not_outlive_a_supervisor_that_may_not_end_it(agent, changing):
    """A child that runs as another user by then, below a supervisor that is not root's, is ended by root's agent."""
    marked = Marked()
    inner = f"{changing} --reuid {WWW_DATA} --regid {WWW_DATA} --clear-groups sleep 600 & echo there; wait"
    words = [LAUNCHER, "exec", "--timeout", "60s", "--scope", "guarded", "--run-ref", marked.word, "--supervise", "--"]
    child = subprocess.Popen(
        [*prefix(NOBODY, NOBODY), *words, "sh", "-c", inner], env=agent.environment(marked.env), stdout=-1, stderr=-1, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "there\n"
    wait_until(lambda: [pid for pid in marked.alive() if os.stat(f"/proc/{pid}").st_uid == WWW_DATA])
    child.kill()
    marked.wait_gone()
    finished(child)
