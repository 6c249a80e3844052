"""What a supervised command has comes to its end while no agent is there: its supervisor ends it then, and not before (F69)."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.exec import kernel
from tests.supervise.ordering import OrderingAgent
from tests.supervise.supervised import PYTHON, Marked, line, start
from tests.supervise.test_ordered import IGNORES, SAYS
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

LINE = b"prism-vault: no agent is there, and what the command was given has come to its end: it is ended\n"


def now() -> float:
    """Return CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def given(tmp_path: Path, seconds: float, *command: str, grace: float = 10, **more: Any) -> tuple[subprocess.Popen[bytes], float]:
    """Start a supervised command whose agent says that what it has ends in so many seconds, and then is killed."""
    with OrderingAgent(tmp_path, grace=grace, ends=now() + 1000, orders=False) as agent:
        process = start(agent, *(command or SAYS), stderr=-1, **more)
        assert line(process) == "1"
        end = now() + seconds
        agent.tell(1, b"ends %d" % (end * 1000))
    os.unlink(agent.path)
    return process, end


def told(process: subprocess.Popen[bytes]) -> bytes:
    """Return what a process that has ended wrote on standard error."""
    assert process.stderr is not None
    return process.stderr.read()


def test_it_goes_on_until_then(tmp_path):
    """With the agent gone the command and its daemons live until the end of what they have; then all end, with 69 and a line."""
    marked = Marked()
    script = "trap '' HUP; setsid sleep 600 & echo $DB; wait"
    process, end = given(tmp_path, 1.5, "sh", "-c", script, env=marked.env)
    with process:
        wait_until(lambda: now() > end - 0.5)
        assert process.poll() is None
        assert process.wait(30) == 69
        assert end <= now() and marked.alive() == []
        assert told(process) == LINE


def test_who_ignores_it_is_killed(tmp_path):
    """A command that ignores SIGTERM is killed after its grace, as at a revocation."""
    process, _ = given(tmp_path, 0.7, *PYTHON, IGNORES, grace=0.5)
    with process:
        assert line(process) == "told"
        assert (process.wait(30), told(process)) == (69, LINE)


def test_what_was_told_with_the_values(tmp_path):
    """Where the agent is killed before it could tell anything else, what it has told with the values counts."""
    end = now() + 1.0
    with OrderingAgent(tmp_path, ends=end, orders=False) as agent:
        process = start(agent, *SAYS, stderr=-1)
        wait_until(lambda: agent.starts == 1)
    with process:
        assert (process.wait(30), told(process)) == (69, LINE)
        assert now() >= end


def test_while_an_agent_is_there_it_decides(tmp_path):
    """The end passes while the agent is there: nothing happens; when it goes afterwards the command is ended at once."""
    with OrderingAgent(tmp_path, ends=now() + 1000, orders=False) as agent:
        process = start(agent, *SAYS, stderr=-1)
        assert line(process) == "1"
        end = now() + 0.2
        agent.tell(1, b"ends %d" % (end * 1000))
        wait_until(lambda: now() > end + 0.3)
        assert process.poll() is None
    with process:
        assert (process.wait(30), told(process)) == (69, LINE)


@pytest.mark.parametrize("later", ["later", "never", "no end"])
def test_the_end_that_was_told_last_counts(tmp_path, later):
    """What the agent has told over its connection goes before what it told at first: an end that is later, or none."""
    with OrderingAgent(tmp_path, ends=now() + 1000, orders=False) as agent:
        process = start(agent, *SAYS, stderr=-1)
        assert line(process) == "1"
        end = now() + 0.3
        lines = {"later": b"ends %d" % ((end + 0.7) * 1000), "never": b"ends never", "no end": b"ends "}
        for _ in range(500):  # longer in all than what is kept of an answer
            agent.tell(1, b"ends 1000")
        agent.tell(1, lines[later])
    with process:
        if later == "later":
            assert (process.wait(30), told(process)) == (69, LINE)
            assert now() >= end + 0.7
        else:
            wait_until(lambda: now() > end + 0.3)
            assert process.poll() is None
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM


def test_an_agent_that_comes_back_in_time(tmp_path):
    """Where the next agent is there before the end, and knows of the command, it goes on beyond it."""
    process, end = given(tmp_path, 3.0)
    with process, OrderingAgent(tmp_path, ends=end + 100) as agent:
        wait_until(lambda: agent.asked == ["pva_1"])
        wait_until(lambda: now() > end + 0.2)
        assert process.poll() is None
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize("answers", [False, True], ids=["no answer", "does not know it"])
def test_who_does_not_know_of_it_decides_nothing(tmp_path, answers):
    """Who takes connections and does not answer, or is an agent that has no record of the command, holds nothing up."""
    process, end = given(tmp_path, 1.0)
    other = OrderingAgent(tmp_path)
    if not answers:
        other.fake.reply = lambda connection: other.waiting.__setitem__("silent", connection.dup())
    with process, other:
        assert (process.wait(30), told(process)) == (69, LINE)
        assert now() >= end


def test_with_restart_it_waits_for_the_next_agent(tmp_path):
    """A command that is restarted ends then, too, and is started with new values when an agent is back."""
    process, end = given(tmp_path, 0.7, options=("--restart", "on-failure"))
    with process:
        assert process.stderr is not None
        assert process.stderr.readline() == LINE
        assert b"no agent" in process.stderr.readline()
        assert now() >= end
        with OrderingAgent(tmp_path, first=2) as agent:
            assert line(process) == "2"
            assert agent.after == [b"pva_1"]
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM


def test_without_an_end_nobody_is_asked(tmp_path):
    """What has no end needs no agent: no connection, and the command lives on without one."""
    with OrderingAgent(tmp_path, orders=False) as agent:
        process = start(agent, *SAYS, stderr=-1)
        assert line(process) == "1"
    with process:
        process.terminate()
        assert (process.wait(30), agent.asked) == (-signal.SIGTERM, [])


def test_the_timer():
    """It is ready at its time of CLOCK_BOOTTIME, at once where that has passed, and not any more once it was set anew."""
    descriptor, poll = kernel.timer(), select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        assert poll.poll(0) == []
        for at in (0.0, now() - 1, now() + 0.2):
            kernel.set_timer(descriptor, at)
            assert poll.poll(10_000) == [(descriptor, select.POLLIN)]
            assert now() >= at
        kernel.set_timer(descriptor, now() + 1000)
        assert poll.poll(0) == []
        kernel.set_timer(descriptor, 0.0)
        kernel.set_timer(descriptor, None)
        assert poll.poll(0) == []
    finally:
        os.close(descriptor)
