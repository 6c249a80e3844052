"""A plain ``exec`` is ended whole: whatever the command has started ends with a revocation, however it has left it (F67)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import eventually, rows
from tests.supervise.supervised import PYTHON, Marked
from tests.supervise.test_tree import SLEEP as ASLEEP
from tests.supervise.test_tree import daemons
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.as_user import NOBODY
from tests.support.groups import group_of
from tests.support.soak import count

if TYPE_CHECKING:
    from collections.abc import Iterator

BINDING = {"URL": "vault://secret/web#url"}
# Forks so many times, each a session of its own and a child of the first.
BROAD = (
    "import posix, sys, time\n"
    "for _ in range(int(sys.argv[1])):\n"
    "    if posix.fork() == 0: posix.setsid(); posix.write(1, b'.'); time.sleep(600)\n"
    "time.sleep(600)\n"
)
# Does nothing but fork and end, so that it is another process at every look; ignores what can be ignored.
BOMB = (
    "import _signal, posix, sys, time\n"
    "_signal.signal(15, _signal.SIG_IGN)\n"
    "for _ in range(int(sys.argv[1])):\n"
    "    if posix.fork() == 0:\n"
    "        posix.setsid(); posix.write(1, b'.')\n"
    "        while True:\n"
    "            if posix.fork(): posix._exit(0)\n"
    "time.sleep(600)\n"
)
# Starts children as another user, which ignore SIGTERM, and stays.
OTHERS = (
    "import _signal, posix, sys, time\n"
    "for _ in range(int(sys.argv[1])):\n"
    "    if posix.fork() == 0:\n"
    f"        posix.setsid(); posix.setgid({NOBODY}); posix.setuid({NOBODY})\n"
    "        _signal.signal(15, _signal.SIG_IGN); posix.write(1, b'.'); time.sleep(600)\n"
    "time.sleep(600)\n"
)
DEAF = "import _signal, posix, time; _signal.signal(15, _signal.SIG_IGN); posix.write(1, b'.'); time.sleep(600)"

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def agent(place, openbao, central) -> Iterator[AgentProcess]:
    """Root's agent, with scopes of different grace."""
    directory = place / "whole"
    directory.mkdir()
    running = AgentProcess(directory, openbao, central)
    running.scope("quick", BINDING, grace="1s")
    running.scope("slow", BINDING, grace="1h")
    try:
        yield running.start()
    finally:
        running.kill()


@pytest.fixture(autouse=True)
def nothing_left(agent) -> Iterator[None]:
    """No test leaves a run; what one that fails leaves is ended."""
    yield
    left = [run["id"] for run in agent.status()["runs"]]
    for audit_id in left:
        group_of(audit_id).joinpath("cgroup.kill").write_text("1")
    assert left == []


def started(agent: AgentProcess, marked: Marked, code: str, number: int, scope: str = "quick") -> subprocess.Popen[str]:
    """Start a program as a run named after its mark; return when it has told of ``number`` processes that they are there."""
    words = ("--timeout", "60s", "--scope", scope, "--run-ref", marked.word, "--", *PYTHON, code, str(number))
    child = agent.spawn(*words, env=marked.env)
    assert child.stdout is not None
    assert child.stdout.read(number) == "." * number
    return child


def finished(child: subprocess.Popen[str]) -> int:
    """Return how the command itself ended; what it has left may have its pipes."""
    for pipe in (child.stdout, child.stderr):
        assert pipe is not None
        pipe.close()
    return child.wait(60)


def run_of(agent: AgentProcess, marked: Marked) -> dict[str, Any] | None:
    """Return what status shows of the run."""
    return next((run for run in agent.status()["runs"] if run["run_ref"] == marked.word), None)


def revoked(agent: AgentProcess, marked: Marked) -> dict[str, Any]:
    """Revoke the run and return how it ended."""
    words = [LAUNCHER, "revoke", "--json", "--run-ref", marked.word]
    done = subprocess.run(words, env=agent.environment(), capture_output=True, text=True, timeout=60, check=False)
    (ended,) = json.loads(done.stdout)["ended"]
    return dict(ended)


@pytest.mark.parametrize(
    ("code", "number"),
    [
        pytest.param(daemons(ASLEEP), count(5, 100), id="daemons"),
        pytest.param(BROAD, count(60, 400), id="forks"),
        pytest.param(daemons(ASLEEP), count(60, 1_000), id="orphans"),
        pytest.param(BOMB, count(5, 20), id="bombs"),
        pytest.param(OTHERS, 5, id="other-user"),
    ],
)
def test_f67_a_revocation_leaves_no_survivor(agent, central, code, number):
    """Daemons, sessions of their own, hundreds of forks, orphans, forks that never rest, another user's: none is left."""
    marked = Marked()
    child = started(agent, marked, code, number)
    run = run_of(agent, marked)
    assert run is not None
    begun = time.monotonic()
    assert revoked(agent, marked)["pid"] == child.pid
    print(f"{number}: {time.monotonic() - begun:.2f} s")
    assert marked.alive() == []
    finished(child)
    eventually(lambda: marked.alive() == [])
    eventually(lambda: [row["fields"].get("reason") for row in rows(central, run["id"])][2:] == ["revoked"])


def test_f66_a_child_that_ignores_sigterm_has_its_grace(agent):
    """Where only a daemon ignores SIGTERM the run is not over before it is: it has its grace, and is killed then."""
    marked = Marked()
    child = started(agent, marked, daemons(ASLEEP, f"exec({DEAF!r})"), 1)
    assert child.stdout is not None and child.stdout.read(1) == "."
    begun = time.monotonic()
    assert revoked(agent, marked) == {"pid": child.pid, "how": "SIGKILL"}
    took = time.monotonic() - begun
    assert marked.alive() == []
    assert took >= 1.0
    print(f"a grace of 1 s took {took:.2f} s")
    finished(child)


def test_who_listens_need_not_be_killed(agent):
    """Each process of the tree gets SIGTERM, and where all end by it the run is over at once."""
    marked = Marked()
    child = started(agent, marked, daemons(ASLEEP), 5, "slow")
    assert revoked(agent, marked) == {"pid": child.pid, "how": "SIGTERM"}
    assert finished(child) == -signal.SIGTERM
    assert marked.alive() == []


def test_a_run_lasts_as_long_as_what_it_left(agent, central):
    """A command that ends and leaves a daemon is still a run, which can be revoked, and whose end is recorded then."""
    marked = Marked()
    child = started(agent, marked, daemons("sys.exit(0)"), 3)
    finished(child)
    eventually(lambda: len(marked.alive()) == 3)
    run = run_of(agent, marked)
    assert run is not None and rows(central, run["id"])[-1]["kind"] == "success"
    assert revoked(agent, marked)["how"] == "SIGTERM"
    assert marked.alive() == []
    eventually(lambda: rows(central, run["id"])[-1]["fields"].get("reason") == "revoked")


def test_a_run_ends_with_the_last_that_it_left(agent, central):
    """Where what a command has left ends by itself the run is over, and its control group is gone."""
    marked = Marked()
    child = started(agent, marked, daemons("sys.exit(0)"), 2)
    finished(child)
    run = run_of(agent, marked)
    for pid in marked.alive():
        os.kill(pid, signal.SIGKILL)
    assert run is not None
    eventually(lambda: rows(central, run["id"])[-1]["fields"].get("reason") == "exited")
    assert run_of(agent, marked) is None


def test_the_next_agent_ends_the_tree_that_it_finds(agent):
    """An agent that comes back knows the tree also where the command itself has ended, and ends it whole."""
    staying, gone = Marked(), Marked()
    child = started(agent, staying, daemons(ASLEEP), 3)
    finished(started(agent, gone, daemons("sys.exit(0)"), 3))
    agent.kill()
    agent.start()
    for marked in (staying, gone):
        assert revoked(agent, marked)["how"] == "SIGTERM"
        assert marked.alive() == []
    finished(child)


def test_a_tree_within_a_tree(agent):
    """A run that a command of another run has begun can be ended alone; with the outer one it ends too."""
    outer, inner = Marked(), Marked()
    words = [
        LAUNCHER,
        "exec",
        "--socket",
        agent.socket,
        "--timeout",
        "60s",
        "--scope",
        "quick",
        "--run-ref",
        inner.word,
        "--",
        "sleep",
        "600",
    ]
    code = f"import os, posix, time\nfor _ in range(2):\n    if posix.fork() == 0: os.execv({words[0]!r}, {words!r})\n{ASLEEP}"
    child = agent.spawn("--timeout", "60s", "--scope", "slow", "--run-ref", outer.word, "--", *PYTHON, code, env=outer.env)
    eventually(lambda: len([run for run in agent.status()["runs"] if run["run_ref"] == inner.word]) == 2)
    pids = [run["pid"] for run in agent.status()["runs"] if run["run_ref"] == inner.word]
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: [run["pid"] for run in agent.status()["runs"] if run["run_ref"] == inner.word] == pids[1:])
    assert child.poll() is None
    revoked(agent, outer)
    assert outer.alive() == []
    eventually(lambda: run_of(agent, inner) is None)
    finished(child)
