"""What an agent that is not root's ends of a command's tree: all, by a control group, by who adopts orphans, or supervised."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.supervise.supervised import PYTHON, Marked
from tests.supervise.test_tree import SLEEP, daemons
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.as_user import NOBODY, prefix
from tests.support.groups import place_of
from tests.support.soak import count
from tests.support.waiting import wait_until
from tests.trees.test_sweep import DEEP

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.namespaces]

BROAD = (
    "import posix, sys, time\n"
    "for _ in range(int(sys.argv[1])):\n"
    "    if posix.fork() == 0: posix.setsid(); posix.write(1, b'.'); time.sleep(600)\n"
    "time.sleep(600)\n"
)


@pytest.fixture(scope="module")
def agent(place, openbao, central) -> Iterator[AgentProcess]:
    """An agent of the user nobody, for commands of that user."""
    directory = place / "users"
    directory.mkdir()
    running = AgentProcess(directory, openbao, central, user=NOBODY)
    running.scope("web", {"URL": "vault://secret/web#url"}, grace="1s")
    try:
        yield running.start()
    finally:
        running.kill()


@pytest.fixture
def own_group(request) -> Iterator[Path]:
    """A control group with nobody in it, named as a unit's is, or as a container's where the test says so."""
    kind = getattr(request, "param", "prism-test-{}.service")
    group = place_of("self") / kind.format(secrets.token_hex(32))
    group.mkdir()
    yield group
    wait_until(lambda: "populated 0" in (group / "cgroup.events").read_text())
    group.rmdir()


def started(
    agent: AgentProcess, marked: Marked, code: str, number: int, group: Path | None, *options: str
) -> subprocess.Popen[str]:
    """Start a program, in a control group or in ours; return when it has told of ``number`` processes that they are there."""
    words = [LAUNCHER, "exec", "--timeout", "60s", "--scope", "web", "--run-ref", marked.word, *options, "--"]
    enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"] if group else []
    command = [*enter, *prefix(NOBODY, NOBODY), *words, *PYTHON, code, str(number)]
    child = subprocess.Popen(command, env=agent.environment(marked.env), stdout=-1, stderr=-1, text=True, process_group=0)
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.read(number) == "." * number, child.stderr.read()
    return child


def adopting(agent: AgentProcess, group: Path | None, *options: str) -> int:
    """Return whether a command adopts its orphans (PR_GET_CHILD_SUBREAPER)."""
    code = "import ctypes, os; told = ctypes.c_int(); ctypes.CDLL(None).prctl(37, ctypes.byref(told), 0, 0, 0)\n"
    code += "print(told.value)"
    with started(agent, Marked(), code, 0, group, *options) as child:
        assert child.stdout is not None
        return int(child.stdout.read())


def revoke(agent: AgentProcess, marked: Marked, child: subprocess.Popen[str]) -> None:
    """Revoke a run, and reap its first process."""
    words = [LAUNCHER, "revoke", "--json", "--run-ref", marked.word]
    done = subprocess.run(words, env=agent.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(done.stdout)["failed"] == [], done
    for pipe in (child.stdout, child.stderr):
        assert pipe is not None
        pipe.close()
    child.wait(60)


@pytest.mark.parametrize("code", [pytest.param(DEEP, id="chain"), pytest.param(BROAD, id="sessions")])
def test_what_can_be_told_to_be_a_descendant_is_ended(agent, code):
    """Without a control group: children of children, each in a session of its own, end with a plain exec."""
    marked = Marked()
    child = started(agent, marked, code, count(30, 400), None)
    revoke(agent, marked, child)
    marked.wait_gone()


def test_a_daemon_that_had_left_is_ended_too(agent):
    """Without a control group the command adopts its orphans: double-forked daemons are its children, and end with it."""
    marked = Marked()
    child = started(agent, marked, daemons(SLEEP), count(30, 400), None)
    revoke(agent, marked, child)
    marked.wait_gone()


@pytest.mark.parametrize(("options", "adopts"), [((), 1), (("--supervise",), 0), (("--mask-output",), 0)])
def test_who_adopts_is_the_command_only_where_nobody_else_does(agent, options, adopts):
    """A plain command adopts its orphans (prctl(2)); one that is supervised does not, since its supervisor does."""
    assert adopting(agent, None, *options) == adopts


def test_a_command_with_a_control_group_to_itself_adopts_nobody(agent, own_group):
    """Where a control group keeps the tree together the command is started as it always was."""
    assert adopting(agent, own_group) == 0


def test_a_shell_waits_for_its_own(agent):
    """A shell that has become the parent of a daemon waits for its own jobs alone, and ends with their status."""
    marked = Marked()
    code = "(setsid sleep 0.1 &) & wait $!; sleep 0.3 & wait $!; (exit 7) & wait $!; echo $?; exit 3"
    words = [LAUNCHER, "exec", "--timeout", "60s", "--scope", "web", "--run-ref", marked.word, "--", "sh", "-c", code]
    done = subprocess.run(
        [*prefix(NOBODY, NOBODY), *words], env=agent.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "7\n", "")


@pytest.mark.parametrize(
    ("own_group", "options"),
    [
        pytest.param("prism-test-{}.service", (), id="unit"),
        pytest.param("docker-{}.scope", (), id="container"),
        pytest.param("prism-test-{}.service", ("--supervise",), id="supervised"),
        pytest.param("prism-test-{}.service", ("--mask-output",), id="masked"),
    ],
    indirect=["own_group"],
)
def test_all_is_ended_that_has_a_control_group_to_itself(agent, own_group, options):
    """In a unit or container of its own every process ends, daemons and orphans too; no supervisor is taken for one of them."""
    marked = Marked()
    child = started(agent, marked, daemons(SLEEP), count(30, 1_000), own_group, *options)
    revoke(agent, marked, child)
    marked.wait_gone()


def test_a_command_that_left_a_daemon_in_a_unit_is_still_a_run(agent, own_group):
    """In a unit of its own the run lasts as long as the daemon that the command has left, and ends it."""
    marked = Marked()
    child = started(agent, marked, daemons("sys.exit(0)"), 3, own_group)
    child.wait(60)
    wait_until(lambda: len(marked.alive()) == 3)
    revoke(agent, marked, child)
    assert marked.alive() == []


@pytest.mark.parametrize(
    ("code", "number"),
    [
        pytest.param(daemons(SLEEP), count(30, 1_000), id="orphans"),
        pytest.param(BROAD, count(30, 400), id="forks"),
    ],
)
def test_all_is_ended_that_is_supervised(agent, code, number):
    """With ``--supervise`` nothing is left, whoever's the agent is and whatever the host has."""
    marked = Marked()
    child = started(agent, marked, code, number, None, "--supervise")
    revoke(agent, marked, child)
    marked.wait_gone()
