"""A stack whose agent follows central's signals, runs on it, and what an operator orders and sees."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from prism_vault_agent.audit.event import new_id
from tests.agent.asking import command_line
from tests.support.stack import stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent import AgentProcess
    from tests.support.central import CentralProcess
    from tests.support.stack import Stack

SLEEP = ("--", "sleep", "1000")
DEAF = ("--", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")


@contextlib.contextmanager
def signalled() -> Iterator[Stack]:
    """Run a stack with scopes of two projects; its agent looks for withdrawn versions once a minute, unless it is told to."""
    with stack(vault='poll = "60s"', reservation_ttl="60s") as running:
        mine = [{"kind": "operator", "uid": os.getuid()}]
        running.openbao.kv_put("secret/other", {"key": "value"})
        running.agent.scope("slow", {"SLOW": "vault://secret/web#canary"}, callers=mine, grace="1h")
        running.agent.scope("other", {"OTHER": "vault://secret/other#key"}, callers=mine, project="elsewhere")
        running.agent.hang_up()
        wait_until(lambda: len(running.agent.status()["scopes"]) == 3)
        wait_until(lambda: running.agent.status()["signals"]["connected"])
        yield running


def started(agent: AgentProcess, run_ref: str, scope: str = "web", words: tuple[str, ...] = SLEEP) -> subprocess.Popen[str]:
    """Start a run and return it once it runs its command and the agent watches it."""
    child = agent.spawn("--scope", scope, "--run-ref", run_ref, *words)
    wait_until(lambda: "prism-vault" not in command_line(child.pid) and child.pid in _pids(agent), 30)
    return child


def order(central: CentralProcess, what: str, **asked: Any) -> int:
    """Order a revocation or a rotation, and return its id."""
    with central.client() as client:
        answer = client.post(f"/v1/{what}", json={"id": new_id(), **asked})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def evidence(central: CentralProcess, number: int) -> dict[str, Any]:
    """Return what became of a revocation."""
    with central.client() as client:
        return dict(client.get(f"/v1/revocations/{number}").json())


def complete(central: CentralProcess, number: int) -> dict[str, Any]:
    """Return what became of a revocation, once it is complete."""
    wait_until(lambda: evidence(central, number)["complete"], 30)
    return evidence(central, number)


def status_of(child: subprocess.Popen[str]) -> int:
    """Return how a child ended, reading away what it said."""
    child.communicate(timeout=60)
    return child.returncode


def _pids(agent: AgentProcess) -> list[int]:
    with contextlib.suppress(OSError, json.JSONDecodeError):
        return [run["pid"] for run in agent.status()["runs"]]
    return []
