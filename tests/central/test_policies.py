"""Policies over HTTP: who changes and sees which, what held at which version, and why something is allowed or not."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import pytest

from prism_vault_agent.central.access_settings import PolicyEntry
from tests.central.access import RULE, code, get, made, new_name, put, remove
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

ASKED = {
    "host": "server1",
    "project": "prism",
    "environment": "lan",
    "scopes": ["web"],
    "kind": "service",
    "purpose": "service",
}


def explain(central: CentralProcess, *, by: str | None = None, **more: Any) -> dict[str, Any]:
    """Return why something is allowed or not."""
    with central.client(by) as client:
        answer = client.post("/v1/policies:explain", json={**ASKED, **more})
    told: dict[str, Any] = answer.json()
    return told


def test_what_holds_is_listed_with_the_configuration(central):
    """The list has the configured rules as version 0 and each rule that was set, with who, when and the row on the log."""
    name = new_name()
    told = put(central, name).json()
    listed = {policy["name"]: policy for policy in get(central)["policies"]}
    event = next(event for event in central.events(kind="policy") if event["n"] == told["n"])

    assert listed["config:1"]["version"] == 0
    assert listed["config:1"]["scopes"] == ["db", "web"]
    assert listed[name] == told
    assert {key: told[key] for key in RULE} == RULE
    assert told["by"] == {"name": "test-operator", "by": "configured_token"}
    assert event["fields"]["policy"]["name"] == name


def test_what_held_is_listed_by_version(central):
    """At each version the list is what held then; history has every version of a name; a version to come is none."""
    name = new_name()
    first = put(central, name).json()["version"]
    second = put(central, name, purposes=["deploy-check"]).json()["version"]
    third = remove(central, name).json()["version"]
    seen = [
        [policy["purposes"] for policy in get(central, version=at)["policies"] if policy["name"] == name]
        for at in (first - 1, first, second, third)
    ]
    with central.client() as client:
        unknown = client.get("/v1/policies", params={"version": third + 1}).json()["code"]

    assert seen == [[], [["*"]], [["deploy-check"]], []]
    assert [each["version"] for each in get(central, f"/{name}")["versions"]] == [first, second, third]
    assert [each["removed"] for each in get(central, f"/{name}")["versions"]] == [False, False, True]
    assert unknown == "no_such_version"


def test_the_same_rule_again_is_no_change(central):
    """Setting what is set already has no new version and no row."""
    name = new_name()
    first = put(central, name)
    again = put(central, name)

    assert first.json() == again.json()
    assert first.headers["etag"] == again.headers["etag"] == f'"{first.json()["version"]}"'


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"If-None-Match": "*"}, "changed"),
        ({"If-Match": '"999999"'}, "changed"),
        ({"If-Match": "1"}, "precondition"),
        ({"If-Match": "*"}, "precondition"),
        ({"If-Match": '"1", "2"'}, "precondition"),
        ({"If-None-Match": '"1"'}, "precondition"),
        ({"If-Match": '"1"', "If-None-Match": "*"}, "precondition"),
    ],
)
def test_a_condition_that_does_not_hold_changes_nothing(central, headers, expected):
    """A condition on another version is 412, one of another form 400; neither sets or removes anything."""
    name = new_name()
    before = put(central, name).json()

    assert put(central, name, headers=headers, purposes=["other"]).json()["code"] == expected
    assert remove(central, name, headers=headers).json()["code"] == expected
    assert get(central, f"/{name}")["versions"][-1]["version"] == before["version"]


def test_an_operator_changes_policies_of_its_own_projects(central):
    """One of project prism sets no rule of another project or of all, and replaces and removes none that is another's."""
    by = central.operator_tokens["prism-ops"]
    name, foreign = new_name(), new_name()
    put(central, foreign, project="other")
    refused = [
        put(central, new_name(), by=by, project="other"),
        put(central, new_name(), by=by, project="*"),
        put(central, foreign, by=by),
        remove(central, foreign, by=by),
    ]

    assert [answer.json()["code"] for answer in refused] == ["other_project"] * 4
    assert put(central, name, by=by).status_code == 200
    assert put(central, name, by=by, project="other").json()["code"] == "other_project"
    assert remove(central, name, by=by).status_code == 200


def test_an_operator_sees_policies_of_its_own_projects(central):
    """Rules of another project are not listed, explained or told of, now or in history; those of all projects are."""
    by = central.operator_tokens["other-ops"]
    mine, foreign, all_of = new_name(), new_name(), new_name()
    put(central, mine, project="other")
    put(central, foreign)
    put(central, all_of, project="*", hosts=["nobody"])
    names = {policy["name"] for policy in get(central, by=by)["policies"]}
    with central.client(by) as client:
        hidden = client.get(f"/v1/policies/{foreign}").json()["code"]
    remove(central, all_of)

    assert {mine, all_of, "config:2"} <= names
    assert not {foreign, "config:1"} & names
    assert hidden == "no_such_policy"
    assert explain(central, by=by)["code"] == "other_project"


def test_a_policy_of_the_configuration_is_changed_where_it_stands(central):
    """Over HTTP it is neither set nor removed."""
    assert put(central, "config:1").json()["code"] == "configured"
    assert remove(central, "config:1").json()["code"] == "configured"


def test_a_name_that_means_nothing_cannot_be_removed(central):
    """Removing a policy that there is not, or that was removed, is 404."""
    name = new_name()
    put(central, name)

    assert remove(central, name).status_code == 200
    assert [remove(central, gone).json()["code"] for gone in (name, new_name())] == ["no_such_policy"] * 2


WRONG: dict[str, dict[str, Any]] = {
    "no scopes": {"scopes": []},
    "no hosts": {"hosts": []},
    "no kinds": {"kinds": []},
    "no purposes": {"purposes": []},
    "too many": {"hosts": [f"h{number}" for number in range(257)]},
    "a kind that is none": {"kinds": ["hunter2"]},
    "not a list": {"scopes": "hunter2"},
    "a name that is none": {"project": "hunter2/x"},
    "a key more": {"colour": "hunter2"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_told_without_its_values(central, name):
    """What is no rule gets 400 with what is wrong and never what was sent."""
    answer = put(central, new_name(), **WRONG[name])

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert "hunter2" not in answer.text


def test_nobody_but_operators_with_the_scope_changes_policy(central, host):
    """Agents of any credential and operators without policy:write are refused, and nothing changes."""
    before = get(central)["version"]
    stored = made(central, role="agent", host="server1")["token"]
    reader = made(central, scopes=["policy:read", "signals:write", "tokens:write"])["token"]
    writer = made(central, scopes=["policy:write"])["token"]
    agents = [put(central, "x", by=token) for token in (central.agent_tokens["server1"], stored)]
    agents += [remove(central, "x", by=token) for token in (central.agent_tokens["server1"], stored)]

    assert [answer.json()["code"] for answer in agents] == ["role"] * 4
    assert put(central, "x", by=reader).json()["code"] == "insufficient_scope"
    assert get(central)["version"] == before
    assert put(central, new_name(), by=writer).status_code == 200
    assert code(central, writer, "/v1/policies") == "ok"


def test_explain_names_what_allows(central):
    """What is allowed is told with every policy that allows it, and is then allowed."""
    name = new_name()
    put(central, name, scopes=["web"], purposes=["service"])
    told = explain(central)

    assert (told["allowed"], told["reason"], told["allowed_by"]) == (True, "", ["config:1", name])
    host = Host(central)
    assert host.send(host.make("reserved")).status_code == 201
    remove(central, name)
    assert explain(central)["allowed_by"] == ["config:1"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"purpose": "curiosity"}, "purpose_not_allowed"),
        ({"scopes": ["web", "mail"]}, "scope_not_allowed"),
        ({"environment": "prod"}, "environment_not_allowed"),
        ({"host": "stranger"}, "project_not_allowed"),
        ({"host": "unheard-of"}, "project_not_allowed"),
        ({"kind": "agent"}, "run_ref_required"),
    ],
)
def test_explain_says_what_the_log_would(central, more, reason):
    """What is denied is told with the reason that a reservation gets; nothing is recorded, and the failing test is named."""
    before = len(central.events())
    told = explain(central, **more)
    fails = {policy["name"]: policy["fails"] for policy in told["policies"]}

    assert (told["allowed"], told["reason"], told["allowed_by"]) == (False, reason, [])
    assert len(central.events()) == before
    if reason not in ("project_not_allowed", "run_ref_required"):
        assert fails["config:1"] == reason.removesuffix("_not_allowed")
    if "host" not in more:
        host = Host(central)
        same = {key: value for key, value in more.items() if key != "kind"}
        denied = host.send(host.make("reserved", caller={"kind": more.get("kind", "service")}, **same)).json()
        assert (denied["reason"], denied["message"]) == (reason, told["message"])
        rows = central.events(reservation=denied["audit_id"])
        assert [row["fields"].get("policy_version") for row in rows] == [None, told["version"]]


def test_a_policy_that_is_not_on_the_log_allows_nothing(tmp_path):
    """A row that was put into the table by hand, naming another event, is told and allows nothing; history shows it as such."""
    with CentralProcess(tmp_path, policies=[]) as central:
        n = put(central, "good").json()["n"]
        rule = PolicyEntry.model_validate({**RULE, "scopes": ["*"]}).rule()
        row = {"project": "prism", "rule": rule.plain(), "by": {"name": "x", "by": "database"}}
        with contextlib.closing(sqlite3.connect(central.database)) as database, database:
            database.execute("INSERT INTO policy VALUES (2, 'forged', ?, ?, 1)", (json.dumps(row).encode(), n))
        wait_until(lambda: any("policy_not_recorded" in line for line in central.log))
        host = Host(central)

        assert host.send(host.make("reserved", scopes=["extra"])).status_code == 201
        assert host.send(host.make("reserved")).json()["reason"] == "scope_not_allowed"
        assert [policy["name"] for policy in get(central)["policies"]] == ["good"]
        assert [each["recorded"] for each in get(central, "/forged")["versions"]] == [False]
