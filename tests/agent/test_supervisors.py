"""Supervisors and a real agent: who waits for orders, and that nobody starts anew what was taken back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, cast

import pytest

from prism_vault_agent.agent.runs.run import Run
from prism_vault_agent.agent.runs.supervisors import Supervisors
from prism_vault_agent.agent.trees.tree import swept
from prism_vault_agent.errors import Denied
from prism_vault_agent.exec.wire import request
from prism_vault_agent.model import Render
from tests.agent.asking import eventually, last_audit_id, rows
from tests.audit.nouns import reservation
from tests.supervise.supervised import Marked
from tests.support.agent import LAUNCHER, AgentProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from prism_vault_agent.agent.runs.ends import Ends
    from prism_vault_agent.agent.runs.runs import Runs

CANARY = "canary-5b1d77e0"


def start(agent: AgentProcess, marked: Marked, run_ref: str, *options: str) -> subprocess.Popen[str]:
    """Start a supervised command that says its value, and return when it has."""
    words = ("--scope", "quick", "--run-ref", run_ref, *options, "--", "sh", "-c", "echo $URL; exec sleep 600")
    child = agent.spawn(*words, env=marked.env)
    assert child.stdout is not None
    assert child.stdout.readline() == f"{CANARY}\n"
    return child


def of(agent: AgentProcess, run_ref: str) -> list[dict[str, object]]:
    """Return what status shows of a run."""
    return [run for run in agent.status()["runs"] if run["run_ref"] == run_ref]


def ask(agent: AgentProcess, release: bytes) -> tuple[socket.socket, bytes]:
    """Wait for orders about a release; return the connection and the first of the answer."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(agent.socket)
    connection.sendall(request(b"/v1/orders", release))
    return connection, connection.recv(4096)


@pytest.mark.parametrize("killed", [False, True], ids=["by this agent", "by the next"])
def test_what_was_taken_back_is_not_started_anew(running, central, killed):
    """After a revocation a command that would be started again is not: the agent denies it, and the denial is on the record.

    So does the next one, where the agent is killed before the command asks.
    """
    marked = Marked()
    with start(running, marked, "taken-back", "--restart", "always") as child:
        words = [LAUNCHER, "revoke", "--run-ref", "taken-back"]
        subprocess.run(words, env=running.environment(), check=True, capture_output=True)
        if killed:
            running.kill()
            running.start()
        assert child.wait(60) == 77
        assert child.stderr is not None
        told = child.stderr.read()
        assert "what it had was taken back, so it is not started anew" in told
        assert marked.alive() == []
    eventually(lambda: [row["kind"] for row in rows(central, last_audit_id(told))] == ["denied"])


def test_each_start_has_a_row_of_its_own(running, central):
    """A command that was killed is started again: another release of the same run, and the first one's end is on the record."""
    marked = Marked()
    with start(running, marked, "again", "--restart", "on-failure") as child:
        (first,) = wait_until(lambda: of(running, "again"))
        subprocess.run(["kill", "-KILL", str(first["pid"])], check=True)
        assert child.stdout is not None
        assert child.stdout.readline() == f"{CANARY}\n"
        (second,) = wait_until(lambda: [run for run in of(running, "again") if run["id"] != first["id"]])
        assert second["run_ref"] == first["run_ref"]
        eventually(lambda: [row["kind"] for row in rows(central, str(first["id"]))].count("cleared") == 1)
        child.terminate()
        assert child.wait(30) == -signal.SIGTERM


def test_it_is_started_again_when_the_agent_is_back(running):
    """While the agent is away a command that has failed waits; the next agent releases to it as any would."""
    marked = Marked()
    with start(running, marked, "outlasts", "--restart", "on-failure") as child:
        (first,) = wait_until(lambda: of(running, "outlasts"))
        running.kill()
        subprocess.run(["kill", "-KILL", str(first["pid"])], check=True)
        assert child.stderr is not None
        assert "no agent on" in child.stderr.readline()
        running.start()
        assert child.stdout is not None
        assert child.stdout.readline() == f"{CANARY}\n"
        child.terminate()
        assert child.wait(30) == -signal.SIGTERM


def test_who_waits_for_orders_is_bounded(running):
    """A user has so many supervisors that wait as connections, and one for each run; others are told to try again."""
    held = [ask(running, b"pva_%d" % number) for number in range(64)]
    try:
        assert all(head.startswith(b"HTTP/1.1 200 OK\r\n") for _, head in held)
        connection, head = ask(running, b"pva_more")
        connection.close()
        assert head.startswith(b"HTTP/1.1 503 ")
    finally:
        for connection, _ in held:
            connection.close()

    def free() -> bool:
        connection, head = ask(running, b"pva_more")
        connection.close()
        return head.startswith(b"HTTP/1.1 200 ")

    wait_until(free)


@pytest.mark.parametrize("release", [b"", b"x" * 65, b"pva\n1", "pva_ü".encode()])
def test_names_that_are_none(running, release):
    """What is no name of a release is refused."""
    connection, head = ask(running, release)
    connection.close()
    assert head.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("why", "is_denied"),
    [
        ("revoked", True),
        ("secret_deleted", True),
        ("scope_removed", True),
        ("on_rotate", True),
        ("lease_revoked", True),
        ("lease_expired", False),
        ("stale", False),
        ("exited", False),
    ],
)
def test_what_is_merely_too_old_may_be_had_anew(tmp_path, why, is_denied):
    """What was taken back is not released to a further start, by the next agent neither; what has merely come to its end is."""
    plain = reservation()
    request = dataclasses.replace(plain.grant.request, supervised=True)
    held = dataclasses.replace(plain, grant=dataclasses.replace(plain.grant, request=request))

    async def asked() -> None:
        first, second = (Supervisors(cast("Runs", []), lambda: 1, cast("Ends", None), str(tmp_path / "kept")) for _ in range(2))
        first.ending(Run(Render(held, (), ()), -1, 0.0, swept(held.grant.caller, None)), why)
        second.load()
        for supervisors in (second, first):
            supervisors.check(None)
            supervisors.check("pva_other")
            supervisors.check(held.audit_id)

    with pytest.raises(Denied) if is_denied else contextlib.nullcontext():
        asyncio.run(asked())
