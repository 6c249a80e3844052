"""A supervised command whose secret is rotated is started anew with the new value, as central pushes it, with real servers."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.agent.rotating import noted_rows
from tests.supervise.supervised import Marked
from tests.support.files import Filed, filed
from tests.support.signalled import order
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = {"min_interval": "0s"}
SAYS = ("sh", "-c", 'echo "$KEY"; exec sleep 600')


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack whose agent looks for new versions every minute, unless it is told of a rotation."""
    with filed(poll="60s") as running:
        yield running


@contextlib.contextmanager
def started(made: Filed, scope: str, *options: str, command: tuple[str, ...] = SAYS) -> Iterator[subprocess.Popen[str]]:
    """Run a supervised command of a scope that says its value, and have it say the first one."""
    marked = Marked()
    process = made.stack.agent.spawn("--scope", scope, *options, "--", *command, env=marked.env)
    try:
        says(process, made.value(scope, 1))
        yield process
    finally:
        process.kill()
        process.communicate()
        marked.wait_gone()


def says(process: subprocess.Popen[str], value: str) -> None:
    """Fail unless the next line is this."""
    assert process.stdout is not None
    assert process.stdout.readline() == f"{value}\n"


def rotate(made: Filed, scope: str, number: int) -> float:
    """Write a new value, and have central tell all hosts; return when."""
    made.stack.openbao.kv_put(f"secret/{scope}", {"key": made.value(scope, number)})
    begun = time.monotonic()
    order(made.stack.central, "rotations", reference=f"vault://secret/{scope}#key")
    return begun


def runs(made: Filed, scope: str) -> list[str]:
    """Return the releases that a scope's processes have."""
    return [run["id"] for run in made.stack.agent.status()["runs"] if run["scopes"] == [scope]]


def released(made: Filed, scope: str) -> list[str]:
    """Return the reservations of a scope that were released."""
    rows = made.stack.rows()
    asked = {row["reservation"] for row in rows if row["kind"] == "reserved" and scope in row["scopes"]}
    return [row["reservation"] for row in rows if row["kind"] == "success" and row["reservation"] in asked]


@pytest.mark.parametrize(("scopes", "options"), [("restart", ("--supervise",)), ("notify", ("--on-rotate", "restart"))])
def test_a_rotation_that_is_pushed(made, scopes, options):
    """Written, and told by central: the old command is ended, and the new one has the new value; the supervisor stays."""
    scope = made.scope(f"pushed-{scopes}", on_rotate=scopes, rotate_limits=AT_ONCE, grace="2s")
    with started(made, scope, *options) as process:
        for number in range(2, 5):
            (release,) = wait_until(lambda: runs(made, scope))
            begun = rotate(made, scope, number)
            says(process, made.value(scope, number))
            print(f"told to the new command's first word: {time.monotonic() - begun:.2f} s")
            assert made.ended(release) == "restarted"
            wait_until(lambda: runs(made, scope) not in ([], [release]))  # noqa: B023 - of this turn
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


def test_how_long_it_took(made):
    """The new command's run tells of its rotation to each stage, from when it was noticed; so do rows of the log, and figures."""
    scope = made.scope("measured", on_rotate="restart", rotate_limits=AT_ONCE, grace="2s")
    counted = 'prism_vault_agent_run_rotation_seconds_count{stage="released"} '
    before = next(line for line in made.command("status", "--metrics").stdout.splitlines() if line.startswith(counted))
    with started(made, scope, "--supervise") as process:
        (release,) = wait_until(lambda: runs(made, scope))
        rotate(made, scope, 2)
        says(process, made.value(scope, 2))
        (run,) = wait_until(lambda: [run for run in made.stack.agent.status()["runs"] if run["scopes"] == [scope]])
        stages = run["last_rotation"]["stages"]
        assert list(stages) == ["switched", "reserved", "read", "recorded", "released"]
        assert list(stages.values()) == sorted(stages.values()) and 0 < stages["released"] < 60
        (row,) = wait_until(lambda: noted_rows(made, "run_in_place", run["id"]))
        assert row["stages"] == pytest.approx({stage: seconds * 1000 for stage, seconds in stages.items()}, abs=1)
        assert row["message"] == f"{run['id']}: in place of {release}"
        (before_it,) = noted_rows(made, "run_rotated", release)
        assert before_it["stages"] == {"switched": row["stages"]["switched"]}
        assert f"ago: switched {stages['switched']:.2f}, reserved" in made.command("status").stdout
        after = next(line for line in made.command("status", "--metrics").stdout.splitlines() if line.startswith(counted))
        assert int(after.removeprefix(counted)) == int(before.removeprefix(counted)) + 1


def test_a_supervisor_that_takes_no_orders(made):
    """A restart that its supervisor was not started for fails: it is tried again, and on the log, in status, plan and figures."""
    scope = made.scope("unasked", rotate_limits=AT_ONCE)
    with started(made, scope, "--supervise"):
        (release,) = wait_until(lambda: runs(made, scope))
        applied = made.stack.agent.log.count('"event": "config.applied"')
        made.scope(scope, on_rotate="restart", rotate_limits=AT_ONCE)
        wait_until(lambda: made.stack.agent.log.count('"event": "config.applied"') > applied, 30)
        rotate(made, scope, 2)
        (row,) = wait_until(lambda: noted_rows(made, "run_rotation_failed", release))
        assert "does not wait for orders; start it with --on-rotate restart" in row["message"]
        for command in (("status",), ("plan", scope)):
            assert f"; FAILED: the supervisor of {release} does not wait for orders" in made.command(*command).stdout
        assert "prism_vault_agent_runs_failed 1\n" in made.command("status", "--metrics").stdout
        assert runs(made, scope) == [release], "it goes on"
    wait_until(lambda: "prism_vault_agent_runs_failed 0\n" in made.command("status", "--metrics").stdout)


def test_three_rotations_at_once(made):
    """F74: what comes within the least interval between two restarts is one restart, with the last value."""
    scope = made.scope("thrice", on_rotate="restart", rotate_limits={"min_interval": "8s"}, grace="2s")
    with started(made, scope, "--supervise") as process:
        wait_until(lambda: runs(made, scope))
        rotate(made, scope, 2)
        says(process, made.value(scope, 2))
        for number in (3, 4, 5):
            rotate(made, scope, number)
        says(process, made.value(scope, 5))
        wait_until(lambda: len(released(made, scope)) == 3)


def test_an_agent_that_was_killed_meanwhile(made):
    """The next agent adopts the run, its supervisor comes back to it, and a rotation is done."""
    scope = made.scope("outlived", on_rotate="restart", rotate_limits=AT_ONCE, grace="2s")
    with started(made, scope, "--supervise") as process:
        wait_until(lambda: runs(made, scope))
        made.stack.agent.kill()
        made.stack.agent.start()
        wait_until(lambda: runs(made, scope))
        rotate(made, scope, 2)
        says(process, made.value(scope, 2))


def test_a_command_that_ignores_it(made):
    """Who does not end is killed after the scope's grace, and the new one has the new value."""
    scope = made.scope("stubborn", on_rotate="restart", rotate_limits=AT_ONCE, grace="1s")
    command = ("sh", "-c", 'trap "" TERM; echo "$KEY"; while :; do sleep 600; done')
    with started(made, scope, "--supervise", command=command) as process:
        wait_until(lambda: runs(made, scope))
        begun = rotate(made, scope, 2)
        says(process, made.value(scope, 2))
        print(f"grace 1 s: told to the new command's first word: {time.monotonic() - begun:.2f} s")


def test_a_scope_that_says_terminate(made):
    """A command that asks to be restarted is ended where its scope ends processes: it is not started again."""
    scope = made.scope("strict", on_rotate="terminate", rotate_limits=AT_ONCE)
    with started(made, scope, "--on-rotate", "restart", "--restart", "always") as process:
        wait_until(lambda: runs(made, scope))
        rotate(made, scope, 2)
        assert process.wait(30) == 77
