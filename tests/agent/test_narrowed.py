"""A scope that admits less than before: who it would not admit any more is ended, and nobody else."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.asking import rows
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import subprocess

    from tests.support.agent import AgentProcess

ENV = {"URL": "vault://secret/web#url"}
ME = {"kind": "operator", "uid": os.geteuid()}
BASE: dict[str, Any] = {
    "callers": [ME, {"kind": "operator", "uid": os.geteuid() + 1}],
    "purposes": ["test", "other"],
    "allow_paths": ["secret/*"],
}


def held(agent: AgentProcess, pid: int) -> dict[str, Any]:
    """Return what status says of a run."""
    return next((run for run in agent.status()["runs"] if run["pid"] == pid), {})


def started(agent: AgentProcess, name: str) -> tuple[subprocess.Popen[str], str]:
    """Make the scope, and return a run of it with a reference of the caller's own, and its audit id."""
    agent.scope(name, ENV, **BASE)
    agent.hang_up()
    wait_until(lambda: name in [scope["name"] for scope in agent.status()["scopes"]], 30)
    child = agent.spawn(*("--scope", name, "--purpose", "test", "--", "sleep", "1000"), env={"OWN": "vault://secret/web#number"})
    wait_until(lambda: held(agent, child.pid), 30)
    return child, held(agent, child.pid)["id"]


def applied(agent: AgentProcess, name: str, env: dict[str, str], more: dict[str, Any]) -> None:
    """Define the scope so, and wait until that is in use."""
    before = agent.log.count('"event": "config.applied"')
    agent.scope(name, env, **{**BASE, **more})
    agent.hang_up()
    wait_until(lambda: agent.log.count('"event": "config.applied"') > before, 30)


@pytest.mark.parametrize(
    ("name", "env", "more"),
    [
        ("callers", ENV, {"callers": [{"kind": "operator", "uid": os.geteuid() + 1}]}),
        ("kinds", ENV, {"callers": [{**ME, "kind": "agent"}]}),
        ("purposes", ENV, {"purposes": ["other"]}),
        ("bindings", {"URL": "vault://secret/web#number"}, {}),
        ("fewer", {"MORE": "vault://secret/web#number"}, {}),
        ("paths", ENV, {"allow_paths": ["secret/elsewhere/*"]}),
    ],
)
def test_who_is_not_admitted_any_more_is_ended(make_agent, central, name, env, more):
    """Callers, their kind, purposes, bindings, allowed paths: a run that would be denied now is ended, and the log says why."""
    agent = make_agent().start()
    child, audit_id = started(agent, name)
    applied(agent, name, env, more)
    assert child.wait(30) == -signal.SIGTERM
    child.communicate()
    wait_until(lambda: [row for row in rows(central, audit_id) if row["kind"] == "cleared"], 30)
    assert rows(central, audit_id)[-1]["fields"]["reason"] == "no_longer_allowed"


def test_what_leaves_it_admitted_leaves_it(make_agent, central):
    """More bindings, more callers, another grace: a run that would be admitted again goes on, also under the next agent."""
    agent = make_agent().start()
    child, audit_id = started(agent, "wider")
    applied(agent, "wider", {**ENV, "MORE": "vault://secret/web#number"}, {"grace": "3s", "allow_paths": ["secret/web"]})
    assert held(agent, child.pid) and child.poll() is None
    agent.kill()
    agent.start()
    assert held(agent, child.pid) and child.poll() is None
    agent.kill()
    agent.scope("wider", ENV, **{**BASE, "purposes": ["other"]})
    agent.start()
    assert child.wait(30) == -signal.SIGTERM
    child.communicate()
    wait_until(lambda: [row for row in rows(central, audit_id) if row["kind"] == "cleared"], 30)
    assert rows(central, audit_id)[-1]["fields"]["reason"] == "no_longer_allowed"
