"""Orders of rotations and revocations: once, recorded, by who may; answers of hosts; what became of them, on both databases."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit.event import new_id
from tests.central.host import Host
from tests.central.test_signal_stream import HOSTS, OPERATORS
from tests.support.central import CentralProcess
from tests.support.stream import Following
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def replicas(server, tmp_path_factory) -> Iterator[list[CentralProcess]]:
    """Return two replicas of a central on PostgreSQL."""
    with CentralProcess(tmp_path_factory.mktemp("one"), agents=HOSTS, operators=OPERATORS, server=server) as one:
        same = {"database": one.setting("database"), "database_owner": one.setting("database_owner")}
        key = {"key_file": str(one.key_file)}
        with CentralProcess(tmp_path_factory.mktemp("two"), agents=HOSTS, more={**same, "log": key}) as two:
            yield [one, two]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def central(request, tmp_path_factory) -> Iterator[CentralProcess]:
    """Return a central on each kind of database."""
    if request.param == "postgresql":
        yield request.getfixturevalue("replicas")[0]
        return
    with CentralProcess(tmp_path_factory.mktemp("file"), agents=HOSTS, operators=OPERATORS) as running:
        yield running


def post(
    central: CentralProcess, what: str = "revocations", token: str | None = None, **asked: Any
) -> tuple[int, dict[str, Any]]:
    """Order, and return status and answer."""
    with central.client(token) as client:
        answer = client.post(f"/v1/{what}", json={"id": new_id(), **asked})
    return answer.status_code, answer.json()


def evidence(central: CentralProcess, number: int, token: str | None = None) -> dict[str, Any]:
    """Return what became of a revocation."""
    with central.client(token) as client:
        found: dict[str, Any] = client.get(f"/v1/revocations/{number}").json()
    return found


def released(host: Host, reference: str = "vault://kv/web#url", **more: Any) -> str:
    """Record a release and return its reservation."""
    reservation = host.reserve(bindings=[{"name": "X", "reference": reference}], **more)
    assert host.end("success", reservation, leases=[{"path": "kv/web", "version": 3}], **more).status_code == 200
    return reservation


def says(host: Host, number: int, reason: str = "signal_done", **counts: Any) -> dict[str, Any]:
    """Send what a host says about a signal, and return the result."""
    body = host.make("admin", scopes=[], project=None, environment=None, signal=number, reason=reason, **counts)
    return host.batch([body])[0]


def test_the_same_order_is_the_same_order(central):
    """Sent again, an order gets the same answer, one row and one signal; another order with its id, or an event's, is refused."""
    asked = {"id": new_id(), "scope": "web", "reason": "once"}
    first, again = post(central, **asked), post(central, **asked)
    other = post(central, **{**asked, "scope": "db"})
    host = Host(central)
    host.reserve()
    event = central.events(host="server1")[-1]["event_id"]

    assert (first[0], again[0]) == (201, 200)
    assert first[1] == again[1]
    assert (other[0], other[1]["code"]) == (422, "id_reused")
    assert post(central, id=event, scope="web")[1]["code"] == "id_reused"
    rows = [row["fields"] for row in central.events(kind="admin") if row["event_id"] == asked["id"]]
    assert [(row["reason"], row["order"]["by"], row["order"]["why"]) for row in rows] == [("revocation", "test-operator", "once")]


def test_the_same_order_at_two_replicas_at_once_is_one(replicas):
    """However often an order arrives at both replicas at once: one is 201, all answers are the same, there is one signal."""
    asked: dict[str, Any] = {"id": new_id(), "everything": True}
    answers: list[tuple[int, dict[str, Any]]] = []
    tokens = [replica.operator_token for replica in replicas]
    sending = [
        threading.Thread(target=lambda which=which: answers.append(post(replicas[which], token=tokens[which], **asked)))
        for which in (0, 1) * 4
    ]
    for thread in sending:
        thread.start()
    for thread in sending:
        thread.join()

    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert len({answer["id"] for _, answer in answers}) == 1
    assert len([row for row in replicas[0].events(kind="admin") if row["event_id"] == asked["id"]]) == 1


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"everything": True, "scope": "web"},
        {"everything": "yes"},
        {"everything": False},
        {"scope": ""},
        {"scope": "x" * 257},
        {"reference": "kv/web"},
        {"scope": "web", "unless": "x"},
        {"id": "short", "scope": "web"},
        {"scope": "web", "emergency": 1},
        {"scope": "web", "reason": "x" * 501},
    ],
)
def test_a_malformed_order_is_refused(central, asked):
    """What is no order gets 400 and a code, and leaves no row and no signal."""
    before = len(central.events(kind="admin"))
    status, answer = post(central, **asked)

    assert (status, answer["code"]) == (400, "malformed")
    assert len(central.events(kind="admin")) == before


def test_an_operator_orders_within_its_projects(central):
    """An operator of one project cannot order for another, and sees no evidence of what is not wholly its own."""
    token = central.operator_tokens["prism-ops"]
    refused = post(central, token=token, everything=True, project="other")
    _, mine = post(central, token=token, everything=True)
    _, all_of_it = post(central, everything=True)

    assert (refused[0], refused[1]["code"]) == (403, "other_project")
    assert evidence(central, mine["id"], token)["projects"] == ["prism"]
    assert evidence(central, all_of_it["id"], token)["code"] == "no_such_revocation"
    with central.client(token) as client:
        listed = client.get("/v1/revocations").json()["revocations"]
    assert mine["id"] in [each["id"] for each in listed]
    assert all_of_it["id"] not in [each["id"] for each in listed]


def test_a_host_answers_for_itself_and_for_what_there_is(central):
    """An answer about a signal that does not exist is refused and leaves no row; one for another host cannot be made."""
    host = Host(central)
    _, placed = post(central, scope="web")
    unknown = says(host, placed["id"] + 1_000_000)
    body = Host(central, "server2").make("admin", scopes=[], signal=placed["id"])
    answer = host.client.post("/v1/audit/events:batch", json={"events": [body.decode()]}).json()["results"][0]

    assert (unknown["status"], unknown["reason"], unknown["appended"]) == (409, "no_signal", False)
    assert (answer["status"], answer["reason"]) == (403, "host_mismatch")
    assert says(host, placed["id"])["status"] == 201


def test_the_evidence_from_order_to_cleared(central):
    """A release that is meant makes its host concerned: silent, ending, cleared once its end and its answer are on the log."""
    host, other = Host(central, "server1"), Host(central, "server2")
    mine, theirs = released(host, run_ref="r-1"), released(other, "vault://kv/other#url", run_ref="r-2")
    with Following(central, central.agent_tokens["server1"]) as following:
        _, placed = post(central, reference="vault://kv/web#url", run_ref="r-1")
        following.wait_for(1)
        number = placed["id"]
        wait_until(lambda: evidence(central, number)["hosts"][0]["told_at"])
    states = [evidence(central, number)["states"]]
    says(host, number, "signal_received", found=1)
    states.append(evidence(central, number)["states"])
    says(host, number, ended=1, failed=0)
    states.append(evidence(central, number)["states"])
    host.batch([host.make("cleared", mine, reason="revoked", signal=number, run_ref="r-1")])
    wait_until(lambda: evidence(central, number)["complete"])
    (found,) = [each for each in evidence(central, number)["hosts"] if each["host"] == "server1"]
    other.clear(theirs)

    assert "server2" not in [each["host"] for each in evidence(central, number)["hosts"]]
    assert [next(iter(state)) for state in states] == ["silent", "ending", "ending"]
    assert (found["cleared"], found["ended"], found["left"]) == (1, 1, 0)
    assert found["releases"][0]["audit_id"] == f"pva_{mine}"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ({"scope": "web"}, True),
        ({"scope": "db"}, False),
        ({"reference": "vault://kv/web"}, True),
        ({"reference": "vault://kv/web#other"}, False),
        ({"reference": "vault://kv/web?version=3"}, True),
        ({"reference": "vault://kv/web?version=2"}, False),
        ({"run_ref": "meant"}, True),
        ({"host": "server2"}, True),
        ({"host": "server2", "scope": "db"}, False),
        ({"everything": True}, True),
        ({"everything": True, "project": "other"}, False),
    ],
)
def test_what_is_out_there_is_found_by_each_condition(central, asked, meant):
    """A release without an end is among what is left exactly where it fulfils all conditions; one that was cleared is not."""
    host = Host(central, "server2")
    gone, mine = released(host, run_ref="meant"), released(host, run_ref="meant")
    host.batch([host.make("cleared", gone, run_ref="meant")])
    _, placed = post(central, **asked)
    later = released(host, run_ref="meant")
    found = evidence(central, placed["id"])
    left = {release["audit_id"] for each in found["hosts"] for release in each["releases"]}
    host.batch([host.make("cleared", each, run_ref="meant") for each in (mine, later)])

    assert (f"pva_{mine}" in left) is meant
    assert not {f"pva_{gone}", f"pva_{later}"} & left
