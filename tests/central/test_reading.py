"""Who reads what: pages of the events of one's own projects, by filter."""

from __future__ import annotations

import time

import pytest

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.access.permission import NEEDS
from tests.central.host import Host


def reservations(client, **filters) -> set[str]:
    """Return the reservations of all events that the caller sees."""
    answer = client.get("/v1/audit/events", params={**filters, "limit": 1000})
    assert answer.status_code == 200, answer.text
    return {event["reservation_id"] for event in answer.json()["events"]}


@pytest.fixture
def two_projects(central) -> tuple[str, str, str]:
    """Return a reservation of project prism, one of project other, and a denial of no project."""
    here, there = Host(central), Host(central, "stranger")
    nowhere = new_id()
    here.end("denied", nowhere, project=None, environment=None, scopes=["typo"])
    return here.reserve(), there.reserve(project="other"), nowhere


def test_an_operator_reads_its_own_projects(central, two_projects):
    """An operator of one project sees its rows, none of another project and none without one; one of all sees all (T30)."""
    prism, other, nowhere = two_projects
    with central.client(central.operator_tokens["prism-ops"]) as client:
        seen_by_prism = reservations(client)
    with central.client(central.operator_tokens["other-ops"]) as client:
        seen_by_other = reservations(client)
    with central.client() as client:
        seen_by_all = reservations(client)

    assert prism in seen_by_prism
    assert not {other, nowhere} & seen_by_prism
    assert other in seen_by_other
    assert not {prism, nowhere} & seen_by_other
    assert {prism, other, nowhere} <= seen_by_all


def test_an_agent_reads_its_own_projects(central, two_projects):
    """An agent sees the rows of its own projects only, whatever it asks for."""
    prism, other, _ = two_projects
    client = Host(central, "stranger").client

    assert other in reservations(client)
    assert prism not in reservations(client)
    assert reservations(client, reservation=prism) == set()
    assert reservations(client, host="server1") == set()


def test_central_s_denial_is_read_by_the_project_it_is_about(central, host):
    """The row that central makes for a denial is seen by that project's operators, under the host it is about."""
    body = host.make("reserved", purpose="curiosity")
    answer = host.send(body).json()

    with central.client(central.operator_tokens["prism-ops"]) as client:
        page = client.get("/v1/audit/events", params={"reservation": answer["audit_id"], "host": "server1"}).json()

    assert [event["kind"] for event in page["events"]] == ["reserved", "denied"]


def test_filters_narrow(central, host):
    """Every filter finds the events that have its value, and no others; together they all must match."""
    run, job = new_id(), new_id()
    wanted = host.reserve(scopes=["web", "db"], purpose="deploy-check", run_ref=run, job_id=job)
    host.reserve()
    before = int(time.time() * 1000) - 60_000
    for name, value in {
        "scope": "db",
        "run_ref": run,
        "job_id": job,
        "purpose": "deploy-check",
        "kind": "reserved",
        "reservation": wanted,
        "host": "server1",
        "since": before,
    }.items():
        found = central.events(**{name: value})
        assert wanted in {event["reservation_id"] for event in found}, name

    assert {event["reservation_id"] for event in central.events(scope="db", run_ref=run)} == {wanted}
    assert central.events(run_ref=run, kind="success") == []
    assert central.events(run_ref=run, until=before) == []
    assert central.events(run_ref=run, scope="web' OR 1=1 --") == []


def test_pages_cover_the_log_once(central, host):
    """Following ``next`` visits every event once, in the order of its index, and ends."""
    for _ in range(7):
        host.reserve()
    with central.client() as client:
        seen, after = [], 0
        while after is not None:
            page = client.get("/v1/audit/events", params={"after": after, "limit": 3}).json()
            seen += [event["n"] for event in page["events"]]
            after = page["next"]

    assert seen == [event["n"] for event in central.events()]
    assert seen == sorted(set(seen))


def test_the_newest_are_had_at_once(central, host):
    """``last`` returns the newest events in the order of their index."""
    for _ in range(3):
        host.reserve()
    with central.client() as client:
        newest = client.get("/v1/audit/events", params={"last": 2}).json()["events"]

    assert [event["n"] for event in newest] == [event["n"] for event in central.events()][-2:]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "after=-1", "after=x", "after=99999999999999999999", "unknown=1", "reservation=x"]
)
def test_a_question_of_another_shape_is_a_problem(central, query):
    """A wrong or unknown parameter gets 400 and a problem that names it, not its value."""
    with central.client() as client:
        answer = client.get(f"/v1/audit/events?{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, "query")
    assert query.partition("=")[0] in answer.json()["detail"]


def test_every_route_is_described(central):
    """The OpenAPI document has each route that the table of permissions has, but itself."""
    with central.client(token="none") as client:
        paths = client.get("/openapi.json").json()["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods if method != "parameters"}

    assert described == NEEDS.keys() - {("GET", "/openapi.json")}
