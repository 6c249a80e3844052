"""Service tokens: who makes one and sees it, what it may do, and what is kept of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from functools import partial
from typing import Any

import pytest

from prism_vault_agent.central.access.permission import SCOPES
from prism_vault_agent.central.access.token_request import TokenRequest, new_token
from tests.central.access import code, made, make
from tests.central.host import Host
from tests.central.test_permission import CLOSED, filled
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until


def test_a_token_is_the_agent_of_its_host(central):
    """An agent's token appends as its host and no other, and may do nothing that is an operator's."""
    token = made(central, role="agent", host="server7", projects=["prism"])["token"]
    host = Host(central, "server7", token)
    refused = host.send(host.make("reserved"))  # no policy names this host: central's own denial is on the log
    host.chain.host = "server1"
    forged = host.send(host.make("reserved"))

    assert (refused.status_code, refused.json()["reason"]) == (403, "host_not_allowed")
    assert forged.json()["code"] == "host_mismatch"
    assert code(central, token, "/v1/tokens") == "role"
    assert code(central, token, "/v1/policies") == "role"


def test_a_token_is_shown_once_and_kept_as_a_hash(central):
    """The token is in the answer that makes it and nowhere else: not in the list, the log, the rows or central's own log."""
    told = made(central)
    token, name = told["token"], told["name"]
    with central.client() as client:
        listed = client.get("/v1/tokens").text
    rows = "".join(event["body"] for event in central.events())

    assert token.startswith("pvt_")
    assert len(token) >= 47
    assert name in listed
    assert hashlib.sha256(token.encode()).hexdigest() in rows
    assert token not in listed + rows + "".join(central.log)


def test_every_token_is_another_one():
    """Two requests for the same token get tokens that have nothing in common, since they are random."""
    tokens = {new_token() for _ in range(1000)}

    assert len({token for token, _ in tokens}) == len({sha256 for _, sha256 in tokens}) == 1000


def test_a_name_is_used_once(central):
    """A name that a token has or had, also one of the configuration, is taken."""
    name = made(central)["name"]
    with central.client() as client:
        client.delete(f"/v1/tokens/{name}")

    assert [make(central, name=taken).json()["code"] for taken in (name, "prism-ops")] == ["name_taken"] * 2


def test_a_token_of_the_configuration_is_listed_and_not_revoked(central):
    """The list shows it with all scopes of its role; it is struck where it stands."""
    with central.client() as client:
        listed = {token["name"]: token for token in client.get("/v1/tokens").json()["tokens"]}
        answer = client.delete("/v1/tokens/prism-ops")

    assert set(listed["prism-ops"]["scopes"]) == SCOPES["operator"]
    assert (answer.status_code, answer.json()["code"]) == (409, "configured")
    assert code(central, central.operator_tokens["prism-ops"]) == "ok"


@pytest.mark.parametrize("scope", sorted(SCOPES["operator"]))
def test_a_token_does_what_its_scope_says(central, scope):
    """With one scope, every route of operators that needs another one is refused, whatever is asked there."""
    token = made(central, scopes=[scope])["token"]
    allowed = {scope, scope.replace(":write", ":read")}
    with central.client(token) as client:
        for (method, path), need in CLOSED.items():
            if "operator" in need.roles and not need.loopback:
                answer = client.request(method, filled(path), timeout=5) if need.scope not in allowed else None
                assert answer is None or (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), path


BEYOND: dict[str, dict[str, Any]] = {
    "another project": {"projects": ["other"]},
    "one project more": {"projects": ["prism", "other"]},
    "all projects": {"projects": ["*"]},
    "a scope more": {"scopes": ["audit:read", "signals:write"]},
    "a host": {"role": "agent", "host": "server1"},
    "a longer life": {"expires_in": 601},
    "no end": {"expires_in": None},
}


@pytest.mark.parametrize("what", BEYOND)
def test_a_token_makes_none_that_can_do_more(central, what):
    """An operator makes no token with another project, another scope, a host or a longer life than its own."""
    own = made(central, scopes=["audit:read", "tokens:write"], expires_in=600)["token"]

    refused = make(central, own, **{"expires_in": 500, **BEYOND[what]})

    assert (refused.status_code, refused.json()["code"]) == (403, "beyond_own")
    assert code(central, made(central, own, expires_in=500)["token"]) == "ok"


def test_an_operator_sees_and_revokes_tokens_of_its_own_projects(central):
    """A token of another project, of all or of a host is neither listed nor revoked for an operator of one project."""
    mine = made(central)["name"]
    others = [
        made(central, projects=["other"])["name"],
        made(central, projects=["*"])["name"],
        made(central, role="agent", host="server8")["name"],
    ]
    with central.client(central.operator_tokens["prism-ops"]) as client:
        listed = {token["name"] for token in client.get("/v1/tokens").json()["tokens"]}
        refused = [client.delete(f"/v1/tokens/{name}").json()["code"] for name in others]
        gone = client.delete(f"/v1/tokens/{mine}").status_code

    assert mine in listed
    assert not listed & {*others, "test-operator"}
    assert refused == ["other_project"] * 3
    assert gone == 200


WRONG: dict[str, dict[str, Any]] = {
    "no project": {"projects": []},
    "operator with a host": {"host": "server1"},
    "agent without a host": {"role": "agent"},
    "agent of central": {"role": "agent", "host": "central"},
    "agent that writes policy": {"role": "agent", "host": "server1", "scopes": ["policy:write"]},
    "operator that appends": {"scopes": ["audit:append"]},
    "no scope at all": {"scopes": []},
    "a scope that is none": {"scopes": ["hunter2"]},
    "a role that is none": {"role": "hunter2"},
    "ended already": {"expires_in": 0},
    "not a number": {"expires_in": "hunter2"},
    "another name": {"name": "hunter2 is no name"},
    "a key more": {"hunter2": "x"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_told_without_its_values(central, name):
    """What is no token gets 400 with what is wrong and never what was sent."""
    answer = make(central, **WRONG[name])

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert "hunter2" not in answer.json()["detail"] or name == "a key more"


def test_a_body_that_is_too_large_is_refused(central):
    """A request that is no append has at most 64 KiB."""
    answer = make(central, projects=["x" * 70_000])

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_without_scopes_a_token_has_those_of_its_role():
    """An operator's token reads the log unless it is given more, an agent's has all that agents have."""
    base: dict[str, Any] = {"name": "x", "projects": ["prism"], "expires_in": None}

    assert TokenRequest(**base, role="operator").grant.scopes == ("audit:read",)
    assert set(TokenRequest(**base, role="agent", host="server1").grant.scopes) == SCOPES["agent"]


def test_a_token_that_is_not_on_the_log_is_not_believed(tmp_path):
    """A row that was put into the table by hand, with no event or with another's, gives nobody anything, and is told."""
    with CentralProcess(tmp_path) as central:
        n = made(central, projects=["*"])["n"]
        for at in (n, n + 99):
            forge(central, f"forged-{at}", at)
        for at in (n, n + 99):
            wait_until(partial(told_of, central, f"forged-{at}"))
            assert code(central, f"pvt_forged-{at}") == "unknown_token"


def told_of(central: CentralProcess, name: str) -> bool:
    """Tell whether central has logged that a token is not on the log."""
    return any("token_not_recorded" in line and name in line for line in central.log)


def forge(central: CentralProcess, name: str, n: int) -> None:
    """Insert a token of everything as the owner of the file, naming an event of the log as its own."""
    sha256 = hashlib.sha256(f"pvt_{name}".encode()).hexdigest()
    token = {"name": name, "role": "operator", "host": "", "projects": ["*"], "scopes": ["audit:read"], "expires_at": None}
    row = {"token": {**token, "sha256": sha256}, "by": {"name": "x", "by": "database"}}
    with contextlib.closing(sqlite3.connect(central.database)) as database, database:
        database.execute("INSERT INTO token VALUES (?, 'made', ?, ?, ?, 1)", (name, sha256, json.dumps(row).encode(), n))
