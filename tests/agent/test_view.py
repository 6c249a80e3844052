"""What the agent tells of itself depends on who asks."""

from __future__ import annotations

import dataclasses
import json
import os
from functools import partial

import pytest

from prism_vault_agent.model import Caller
from prism_vault_agent.policy.decide import admits
from prism_vault_agent.scope import CallerRule, Purpose, Scope, ScopeName
from tests.agent.asking import STATUS, ask
from tests.support.as_user import in_child
from tests.support.waiting import wait_until

BINDING = {"URL": "vault://secret/web#url"}
WEB = Scope(
    name=ScopeName("web"),
    project="prism",
    environment="test",
    purposes=(Purpose("test"),),
    callers=(CallerRule("service", uid=1000), CallerRule("operator", gid=50)),
)
STRANGER = Caller(pid=7, uid=2000, gid=2000, groups=frozenset({2000}), executable="/bin/x", started=1)


def test_a_scope_admits_whom_it_names_and_nobody_else():
    """A scope is a caller's business where one of its rules matches, by user or by any of the groups."""
    assert not admits(WEB, STRANGER)
    assert admits(WEB, dataclasses.replace(STRANGER, uid=1000))
    assert admits(WEB, dataclasses.replace(STRANGER, groups=frozenset({50})))
    assert not admits(dataclasses.replace(WEB, callers=()), dataclasses.replace(STRANGER, uid=1000))


@pytest.mark.root
def test_t30_another_user_sees_only_what_is_its_business(make_agent):
    """Status and plan tell another user its own scopes and runs: not whose, not which, not from where for the others."""
    agent = make_agent(agent='socket_mode = "0666"')
    agent.scope("mine", BINDING).scope("nobodys", BINDING, callers=[{"kind": "service", "user": "nobody"}]).start()
    with agent.spawn("--scope", "mine", "--", "sleep", "60") as running:
        wait_until(lambda: agent.status()["runs"])
        seen = json.loads(in_child(lambda: ask(agent.socket, STATUS).body))
        planned = [json.loads(in_child(partial(plan, agent.socket, name))) for name in ("mine", "nobodys")]
        running.kill()
    assert [scope["name"] for scope in seen["scopes"]] == ["nobodys"]
    assert seen["runs"] == []
    assert [(told["allowed"], len(told["bindings"])) for told in planned] == [(False, 0), (True, 1)]
    assert {scope["name"] for scope in agent.status()["scopes"]} >= {"mine", "nobodys"}, os.geteuid()


def plan(path: str, scope: str) -> bytes:
    """Return the answer to a plan request."""
    body = json.dumps({"scopes": [scope]}).encode()
    head = f"POST /v1/plan HTTP/1.1\r\nHost: prism-vault\r\nX-Prism-Vault: 1\r\nContent-Length: {len(body)}\r\n\r\n"
    return ask(path, head.encode() + body).body
