"""Runs outlive the agent that started them: the next one looks after what still holds its values, and records what has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agent.asking import command_line
from tests.support.agent import LAUNCHER
from tests.support.fault_proxy import Fault, always, with_kind
from tests.support.groups import group_of
from tests.support.signalled import order, status_of
from tests.support.soak import count
from tests.support.stack import Stack, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEP = ("--", "sleep", "1000")


@pytest.fixture(scope="module")
def made() -> Iterator[Stack]:
    """A stack whose agent looks every second whether what it gave out still stands."""
    with stack(vault='poll = "1s"', reservation_ttl="10s") as running:
        yield running


def given(made: Stack, scope: str, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start a run of a scope of its own; return it once it runs its command, and its audit id."""
    if scope != "web":
        made.openbao.kv_put(f"secret/{scope}", {"key": "value"})
        made.agent.scope(scope, {"KEY": f"vault://secret/{scope}#key"})
        made.agent.hang_up()
        wait_until(lambda: scope in [each["name"] for each in made.agent.status()["scopes"]])
    child = made.agent.spawn("--scope", scope, *options, *SLEEP)
    wait_until(lambda: "prism-vault" not in command_line(child.pid))
    return child, wait_until(lambda: next((run["id"] for run in made.agent.status()["runs"] if run["pid"] == child.pid), ""))


def why(made: Stack, audit_id: str) -> str:
    """Return why what was released is no longer out there, once that is on the log, where it stands once."""

    def found() -> list[str]:
        rows = made.central.events(reservation=audit_id.removeprefix("pva_"))
        return [row["fields"]["reason"] for row in rows if row["kind"] == "cleared"]

    wait_until(found)
    (reason,) = found()
    return str(reason)


def runs(made: Stack) -> dict[str, int]:
    """Return the runs that the agent knows: their audit ids and processes."""
    return {run["id"]: run["pid"] for run in made.agent.status()["runs"]}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_next_agent_knows_what_runs(made, end):
    """However an agent ends, its runs go on, and the next one shows them, ends them when told to, and records that."""
    child, audit_id = given(made, "web", "--run-ref", f"adopted-{end}")
    getattr(made.agent, end)()
    assert child.poll() is None
    made.agent.start()
    assert runs(made)[audit_id] == child.pid
    words = [LAUNCHER, "revoke", "--run-ref", f"adopted-{end}"]
    assert subprocess.run(words, env=made.agent.environment(), capture_output=True, check=False, timeout=60).returncode == 0
    assert status_of(child) == -signal.SIGTERM
    assert why(made, audit_id) == "revoked"


def test_what_ends_meanwhile_is_recorded(made):
    """A run that ends while there is no agent is recorded by the next one, once, and no later one knows it."""
    child, audit_id = given(made, "web")
    made.agent.kill()
    child.kill()
    status_of(child)
    for later in (False, True):
        if later:
            made.agent.stop()
        made.agent.start()
        assert why(made, audit_id) == "exited"
        assert audit_id not in runs(made)


@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("ends", ["exited", "revoked"])
def test_an_end_that_is_being_told_is_not_lost(made, ends, arrives):
    """An agent that is killed after a run's end, before central's answer, leaves the end to the next one: it is on the log once.

    Whether central has taken it or not: nobody can know.
    """
    child, audit_id = given(made, "web", "--run-ref", f"told-{ends}-{arrives}")
    told = with_kind("cleared")
    before = made.to_central.count(told)
    with made.to_central.failing(always(Fault("hang", forwarded=arrives), told)):
        if ends == "exited":
            child.kill()
        else:
            words = [LAUNCHER, "revoke", "--run-ref", f"told-{ends}-{arrives}"]
            assert subprocess.run(words, env=made.agent.environment(), check=False, timeout=60).returncode == 0
        status_of(child)
        wait_until(lambda: made.to_central.count(told) > before)
        made.agent.kill()
    for later in (False, True):
        if later:
            made.agent.stop()
        made.agent.start()
        assert why(made, audit_id) == ends
        wait_until(lambda: made.agent.status()["central"]["queued"] == 0)
    assert (made.agent.directory / "state/runs").read_text() == ""


def test_what_is_withdrawn_meanwhile_is_taken_back(made):
    """A secret deleted, a scope removed, a revocation ordered while there is no agent: each ends its run at the next one."""
    deleted, removed, revoked, kept = (given(made, f"gone-{name}") for name in ("deleted", "removed", "revoked", "kept"))
    made.agent.kill()
    made.openbao.must("DELETE", "secret/data/gone-deleted")
    (made.agent.directory / "scopes.d/gone-removed.toml").unlink()
    order(made.central, "revocations", scope="gone-revoked")
    made.agent.start()
    assert [status_of(child) for child, _ in (deleted, removed, revoked)] == [-signal.SIGTERM] * 3
    ends = [why(made, audit_id) for _, audit_id in (deleted, removed, revoked)]
    assert ends == ["secret_deleted", "scope_removed", "revoked"]
    assert runs(made) == {kept[1]: kept[0].pid}
    kept[0].kill()
    status_of(kept[0])


def test_another_process_of_the_same_number_is_left_alone(made):
    """A process that has the number of a run, but was started at another time, is neither looked after nor ended."""
    child, audit_id = given(made, "web")
    made.agent.kill()
    left = group_of(audit_id)
    left.parent.joinpath("cgroup.procs").write_text(str(child.pid))  # what it was given is another one's
    records = made.agent.directory / "state/runs"
    started = json.loads(records.read_text().split("\n")[-1])["caller"]["started"]
    records.write_text(records.read_text().replace(f'"started": {started}', f'"started": {started + 1}'))
    made.agent.start()
    assert audit_id not in runs(made)
    assert why(made, audit_id) == "exited"
    assert child.poll() is None and not left.exists()
    child.kill()
    status_of(child)


def test_a_host_that_was_restarted_has_no_runs(made):
    """What was given before the host's start is over, whatever process has its number now."""
    child, audit_id = given(made, "web")
    made.agent.kill()
    records = made.agent.directory / "state/runs"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    records.write_text(records.read_text().replace(boot, boot[::-1]))
    made.agent.start()
    assert (audit_id in runs(made), why(made, audit_id)) == (False, "exited")
    child.kill()
    status_of(child)
    group_of(audit_id).rmdir()  # a host that is restarted has it no more


def test_a_torn_record_spoils_no_other(made):
    """A line that a crash has torn, or that is none, is passed over and told; the others are good."""
    child, audit_id = given(made, "web")
    made.agent.kill()
    records = made.agent.directory / "state/runs"
    records.write_bytes(b'\n{"event_id": "x"}\nnoise\xff\n' + records.read_bytes() + b'\n{"event_id": "to')
    made.agent.start()
    assert runs(made)[audit_id] == child.pid
    assert '"kept.damaged"' in made.agent.log
    child.kill()
    status_of(child)
    assert why(made, audit_id) == "exited"
    wait_until(lambda: records.stat().st_size < 2000)


def test_nothing_is_given_that_could_not_be_kept(made):
    """Where the record cannot be written nothing is released, in one line (73), and the failure is on the log."""
    records = made.agent.directory / "state/runs"
    records.unlink(missing_ok=True)
    records.mkdir()
    try:
        done = made.fails(73, "cannot keep what is given to whom")
    finally:
        records.rmdir()
    assert done.stdout == ""
    made.works()


def test_a_kill_at_any_moment_loses_no_run(made):
    """An agent that is SIGKILLed while it gives values out: every process that has them is known to the next agent."""
    for round_number in range(count(3, 60)):
        children = [made.agent.spawn("--scope", "web", "--timeout", "2s", *SLEEP) for _ in range(4)]
        until = time.monotonic() + 0.05 * (round_number % 12)
        wait_until(lambda until=until: time.monotonic() > until)  # type: ignore[misc]
        made.agent.kill()
        made.agent.start()
        wait_until(lambda children=children: not any(_asking(child) for child in children))  # type: ignore[misc]
        holding = {child.pid for child in children if child.poll() is None}
        assert holding <= set(runs(made).values())
        for child in children:
            child.kill()
            status_of(child)
    wait_until(lambda: not runs(made))


def _asking(child: subprocess.Popen[str]) -> bool:
    """Tell whether a process is still the client, which has no values yet."""
    return child.poll() is None and "prism-vault" in command_line(child.pid)


def test_records_hold_no_value(made):
    """What is written down of a run has its names, paths and process, and mode 0600; no value is in the state directory."""
    child, _ = given(made, "web")
    records = made.agent.directory / "state/runs"
    assert '"CANARY"' in records.read_text()
    kept = [path for path in records.parent.rglob("*") if path.is_file()]
    assert records in kept
    assert [path for path in kept if made.canary.encode() in path.read_bytes()] == []
    assert records.stat().st_mode & 0o777 == 0o600
    assert records.stat().st_uid == os.geteuid()
    child.kill()
    status_of(child)
