"""Supervised commands with a real agent: the command is what is attested, watched and ended, and all of its tree ends with it."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

from tests.agent.asking import eventually, rows
from tests.supervise.supervised import Marked, children, command_of
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.memory import copies
from tests.support.waiting import wait_until

CANARY = "canary-5b1d77e0"
# A command that starts a daemon and says so; both would run on.
DAEMON = ("sh", "-c", "setsid sleep 600 & echo $URL; exec sleep 600")


def start(agent: AgentProcess, marked: Marked, run_ref: str) -> subprocess.Popen[str]:
    """Start the command and return when it has its value."""
    words = ("--scope", "quick", "--run-ref", run_ref, "--supervise", "--", *DAEMON)
    child = agent.spawn(*words, env=marked.env)
    assert child.stdout is not None
    assert child.stdout.readline() == f"{CANARY}\n"
    return child


def run_of(agent: AgentProcess, run_ref: str) -> dict[str, Any]:
    """Return what status says of a run: its command may run before the agent has heard that all was delivered."""
    return wait_until(lambda: next((run for run in agent.status()["runs"] if run["run_ref"] == run_ref), {}))


def reasons(central, run_id: str) -> list[str]:
    """Return why central was told that the run holds nothing any more."""
    return [row["fields"]["reason"] for row in rows(central, run_id) if row["kind"] == "cleared"]


def test_what_is_watched_is_the_command(running):
    """Status lists the command itself; neither the supervisor nor the process between has a copy of the value."""
    marked = Marked()
    with start(running, marked, "supervised-1") as child:
        run = run_of(running, "supervised-1")
        assert run["pid"] == command_of(child.pid)
        for pid in (child.pid, *children(child.pid)):
            assert copies(pid, CANARY) == 0
        assert copies(run["pid"], CANARY) > 0
        child.terminate()
        assert child.wait(30) == -signal.SIGTERM
    assert marked.alive() == []


def test_a_revocation_ends_the_tree(running, central):
    """A revocation ends the command, and with it the daemon that it started; the record says that it was revoked."""
    marked = Marked()
    with start(running, marked, "supervised-2") as child:
        run = run_of(running, "supervised-2")
        words = [LAUNCHER, "revoke", "--run-ref", "supervised-2"]
        subprocess.run(words, env=running.environment(), check=True, capture_output=True)
        assert child.wait(30) == -signal.SIGTERM
        assert marked.alive() == []
        eventually(lambda: reasons(central, run["id"]) == ["revoked"])


def test_a_killed_supervisor_ends_the_run(running, central):
    """Where the supervisor is killed the command ends, and the agent records the end of the run."""
    marked = Marked()
    with start(running, marked, "supervised-3") as child:
        run = run_of(running, "supervised-3")
        child.kill()
        child.wait(30)
        marked.wait_gone()
        eventually(lambda: reasons(central, run["id"]) == ["exited"])
