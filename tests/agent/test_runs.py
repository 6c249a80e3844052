"""Runs: each process that was given values is listed, watched to its end, and ended when told to, by those who may."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import Told, answer, ask, command_line, eventually, exec_request, rows
from tests.agent.puppet import Puppet
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.as_user import NOBODY, in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.central import CentralProcess

ME = os.geteuid()
BINDING = {"URL": "vault://secret/web#url"}
SLEEP = ("--", "sleep", "1000")
DEAF = ("--", "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")


@pytest.fixture(scope="module")
def agent(place, openbao, central) -> Iterator[AgentProcess]:
    """An agent that everybody may connect to, with scopes for runs of us and of nobody."""
    directory = place / "runs"
    directory.mkdir()
    running = AgentProcess(directory, openbao, central, agent='socket_mode = "0666"')
    mine = [{"kind": "operator", "uid": ME}]
    running.scope("slow", BINDING, callers=mine, grace="1h")
    running.scope("quick", BINDING, callers=mine, grace="1s")
    running.scope("others", BINDING, callers=[{"kind": "operator", "uid": ME + 1}])
    running.scope("nobodys", BINDING, callers=[{"kind": "service", "uid": NOBODY}])
    try:
        yield running.start()
    finally:
        running.kill()


def runs(agent: AgentProcess, run_ref: str) -> list[dict[str, Any]]:
    """Return what status says of the runs with this reference."""
    return [run for run in agent.status()["runs"] if run["run_ref"] == run_ref]


def started(agent: AgentProcess, run_ref: str, scope: str = "slow", words: tuple[str, ...] = SLEEP) -> subprocess.Popen[str]:
    """Start a run and return it once it runs its command."""
    child = agent.spawn("--scope", scope, "--run-ref", run_ref, *words)
    eventually(lambda: "prism-vault" not in command_line(child.pid) and runs(agent, run_ref))
    return child


def command(agent: AgentProcess, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of prism-vault as a user of this agent would."""
    words = (LAUNCHER, *words)
    return subprocess.run(words, env=agent.environment(), capture_output=True, text=True, timeout=60, check=False)


def finish(child: subprocess.Popen[str]) -> int:
    """Return how a child ended, reading away what it said."""
    child.communicate(timeout=60)
    return child.returncode


def reasons(central: CentralProcess, audit_id: str) -> list[str]:
    """Return why what was released is no longer out there."""
    return [row["fields"]["reason"] for row in rows(central, audit_id) if row["kind"] == "cleared"]


def revoke_as(agent: AgentProcess, run_ref: str, uid: int | None) -> Told:
    """Return what a process of this user is answered to a revocation."""
    return order_as(agent, "revoke", {"run_ref": run_ref}, uid)


def order_as(agent: AgentProcess, order: str, asked: dict[str, str], uid: int | None) -> Told:
    """Return what a process of this user is answered to a revocation or a rotation."""
    body = json.dumps(asked).encode()
    head = f"POST /v1/{order} HTTP/1.1\r\nHost: a\r\nX-Prism-Vault: 1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return in_child(lambda: ask(agent.socket, head + body), uid)


def test_a_run_is_the_command_itself(agent, central):
    """The process that asked becomes the command: same pid; status lists it with scope, purpose, reference and age."""
    child = started(agent, "list-1")
    run = runs(agent, "list-1")[0]
    assert command_line(child.pid) == "sleep 1000"
    assert (run["pid"], run["uid"], run["scopes"], run["purpose"], run["kind"]) == (child.pid, ME, ["slow"], "test", "operator")
    assert run["age"] >= 0
    assert [row["kind"] for row in rows(central, run["id"])] == ["reserved", "success"]
    child.kill()
    finish(child)
    eventually(lambda: not runs(agent, "list-1"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_the_end_of_a_run_is_logged(agent, central, number):
    """However a run ends by itself, its end is one row: cleared, exited."""
    child = started(agent, f"end-{number}")
    audit_id = runs(agent, f"end-{number}")[0]["id"]
    child.send_signal(number)
    assert finish(child) == -number
    eventually(lambda: reasons(central, audit_id))
    assert reasons(central, audit_id) == ["exited"]


def test_f66_revoke_asks_first(agent, central):
    """``revoke --run-ref`` ends every run of that reference with SIGTERM; each end is a row that says revoked."""
    children = [started(agent, "revoke-1"), started(agent, "revoke-1", "quick")]
    eventually(lambda: len(runs(agent, "revoke-1")) == 2)
    audit_ids = [run["id"] for run in runs(agent, "revoke-1")]
    other = started(agent, "revoke-2")
    done = command(agent, "revoke", "--run-ref", "revoke-1")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == sorted(f"pid {child.pid}: SIGTERM" for child in children)
    assert [finish(child) for child in children] == [-signal.SIGTERM] * 2
    eventually(lambda: [reasons(central, audit_id) for audit_id in audit_ids] == [["revoked"]] * 2)
    assert other.poll() is None
    other.kill()
    finish(other)


def test_f66_revoke_ends_who_does_not_listen(agent, central):
    """F66: a run that ignores SIGTERM is ended with SIGKILL, and that it was revoked is on the log."""
    child = started(agent, "deaf-1", "quick", DEAF)
    assert child.stdout is not None
    assert child.stdout.readline() == "deaf\n"
    audit_id = runs(agent, "deaf-1")[0]["id"]
    done = command(agent, "revoke", "--json", "--run-ref", "deaf-1")
    assert (done.returncode, json.loads(done.stdout)) == (
        0,
        {"cleared": [], "ended": [{"pid": child.pid, "how": "SIGKILL"}], "failed": []},
    )
    assert finish(child) == -signal.SIGKILL
    eventually(lambda: reasons(central, audit_id) == ["revoked"])


def test_revoking_twice_at_once_is_revoking(agent):
    """Two revocations of one run that overlap both end with it, and the agent goes on."""
    child = started(agent, "twice-1", "quick", DEAF)
    assert child.stdout is not None
    child.stdout.readline()
    words = [LAUNCHER, "revoke", "--run-ref", "twice-1"]
    both = [subprocess.Popen(words, env=agent.environment(), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert finish(child) == -signal.SIGKILL
    for revoking in both:
        printed, _ = revoking.communicate(timeout=60)
        assert (revoking.returncode, printed) == (0, f"pid {child.pid}: SIGKILL\n")
    assert "connection.failed" not in agent.log


def test_an_unknown_reference_is_an_error(agent):
    """Revoking what does not run is an error in one line that says where to look."""
    done = command(agent, "revoke", "--run-ref", "no-such-run")
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == "prism-vault: no run has that reference; see prism-vault status\n"


@pytest.mark.root
def test_runs_belong_to_their_user(agent, central):
    """Another user's runs cannot be ended (77), one's own can; a shared reference ends only what is one's own."""
    mine = started(agent, "whose-1")
    told = revoke_as(agent, "whose-1", NOBODY)
    assert (told.status, json.loads(told.body)["class"]) == (403, "Denied")
    assert [order_as(agent, order, {"scope": "slow"}, NOBODY).status for order in ("rotate", "revoke")] == [403, 403]
    assert mine.poll() is None
    with Puppet(agent.socket, exec_request("nobodys", run_ref="whose-1"), uid=NOBODY) as puppet:
        assert answer(puppet.connection).status == 200
        eventually(lambda: len(runs(agent, "whose-1")) == 2)
        assert json.loads(revoke_as(agent, "whose-1", NOBODY).body)["ended"] == [{"pid": puppet.pid, "how": "SIGTERM"}]
    assert [run["pid"] for run in runs(agent, "whose-1")] == [mine.pid]
    with Puppet(agent.socket, exec_request("nobodys", run_ref="whose-2"), uid=NOBODY) as puppet:
        assert answer(puppet.connection).status == 200
        eventually(lambda: runs(agent, "whose-2"))
        assert revoke_as(agent, "whose-2", None).status == 200  # root may end any
    mine.kill()
    finish(mine)


def test_status_for_people_and_programs(agent):
    """``status`` shows the runs in a table, ``--json`` is the agent's own answer, and neither holds a value."""
    child = started(agent, "shown-1")
    page, plain = command(agent, "status"), command(agent, "status", "--json")
    assert (page.returncode, plain.returncode) == (0, 0)
    line = next(line for line in page.stdout.splitlines() if "shown-1" in line)
    assert str(child.pid) in line
    assert "slow" in line
    assert [run["pid"] for run in json.loads(plain.stdout)["runs"] if run["run_ref"] == "shown-1"] == [child.pid]
    assert "canary" not in page.stdout + plain.stdout
    child.kill()
    finish(child)


def test_status_can_be_watched(agent):
    """``status --watch`` shows the status again and again until Ctrl-C."""
    words = [LAUNCHER, "status", "--watch"]
    watching = subprocess.Popen(words, env=agent.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    pages = 0
    while pages < 2:
        pages += watching.stdout.readline().startswith("agent ")
    watching.send_signal(signal.SIGINT)
    _, told = watching.communicate(timeout=60)
    assert watching.returncode in {130, -signal.SIGINT}
    assert "Traceback" not in told


def test_plan_tells_names_and_reasons(agent, central):
    """``plan`` says what a scope would give and to whom, or the rule that denies it and its mend; no value, no row."""
    before = len(central.events())
    allowed = command(agent, "plan", "slow")
    assert (allowed.returncode, allowed.stderr) == (0, "")
    assert "allowed for a caller of kind operator, purpose test" in allowed.stdout
    assert "vault://secret/web#url" in allowed.stdout
    denied = command(agent, "plan", "others")
    assert denied.returncode == 77
    assert denied.stdout.startswith("denied by rule caller\n")
    assert "add a matching entry to the scope's callers" in denied.stderr
    plain = command(agent, "plan", "--json", "others")
    assert (plain.returncode, json.loads(plain.stdout)["rule"]) == (77, "caller")
    assert "canary" not in allowed.stdout + denied.stdout + plain.stdout
    assert len(central.events()) == before
