"""The life of a reservation over HTTP: decided, recorded once, ended once, whatever is asked again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit.event import Chain, digest, new_id
from tests.central.host import Host, fields, told
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def rows(central: CentralProcess, reservation: str) -> list[dict[str, Any]]:
    """Return the rows of a reservation."""
    return central.events(reservation=reservation)


def test_an_allowed_reservation_is_on_the_log_when_it_is_answered(central, host):
    """A 201 means that the event's bytes are on the log, under the audit id and hash that the answer names."""
    body = host.make("reserved")

    answer = host.send(body)

    (row,) = rows(central, answer.json()["audit_id"])
    assert answer.status_code == 201
    assert row["body"].encode() == body
    assert (row["n"], row["hash"]) == (answer.json()["n"], digest(body))


@pytest.mark.parametrize("kind", ["success", "failure", "denied"])
def test_an_open_reservation_ends_once(central, host, kind):
    """The first outcome is answered with 200; any other one with 409 that names the first, and appends nothing."""
    reservation = host.reserve()

    first = host.end(kind, reservation)
    others = [host.end(other, reservation) for other in ("success", "failure", "denied")]

    assert first.status_code == 200
    assert [other.status_code for other in others] == [409] * 3
    assert {other.json()["ended_by"] for other in others} == {kind}
    assert [row["kind"] for row in rows(central, reservation)] == ["reserved", kind]


@pytest.mark.parametrize("kind", ["reserved", "success"])
def test_the_same_event_again_has_the_same_answer(central, host, kind):
    """An answer that was lost is had by asking again (F21, F24): the same status and index, and one row."""
    reservation = new_id() if kind == "reserved" else host.reserve()
    body = host.make(kind, reservation)

    first, again = host.send(body), host.send(body)

    assert (first.status_code, told(first)) == (again.status_code, told(again))
    assert [row["kind"] for row in rows(central, reservation)].count(kind) == 1


def test_a_replay_after_the_end_still_has_the_first_answer(central, host):
    """A reservation that has ended meanwhile was still reserved: its replay is answered with 201."""
    body = host.make("reserved")
    first = host.send(body)
    host.end("success", json.loads(body)["reservation"])

    assert told(host.send(body)) == told(first)


def test_an_event_id_belongs_to_one_event(central, host):
    """The same id with other bytes is refused with 422, also as the next event of the chain, and nothing is appended (F26)."""
    body = host.make("reserved")
    host.send(body)
    event = json.loads(body)
    other = host.make("failure", event["reservation"], event_id=event["event_id"])
    changed = Chain("server1", event["epoch"]).seal({**event, "purpose": "deploy-check"})

    answers = [host.send(other), host.send(changed)]

    assert [answer.status_code for answer in answers] == [422, 422]
    assert [answer.json()["code"] for answer in answers] == ["event_id_reused"] * 2
    assert [row["kind"] for row in rows(central, event["reservation"])] == ["reserved"]


def test_of_two_outcomes_at_once_one_wins(central):
    """A success and a failure of the same reservation that race end in one row: the other gets 409 (F27)."""
    for _ in range(20):
        first = Host(central)
        reservation = first.reserve()
        second = Host(central)
        bodies = [(first, first.make("success", reservation)), (second, second.make("failure", reservation))]
        with ThreadPoolExecutor(2) as pool:
            statuses = sorted(pool.map(lambda pair: pair[0].send(pair[1]).status_code, bodies))

        assert statuses == [200, 409]
        assert len(rows(central, reservation)) == 2


def test_the_same_event_many_times_at_once_is_one_row(central, host):
    """Retries that overtake each other are all answered as the first, and leave one row (T25)."""
    body = host.make("reserved")
    clients = [Host(central) for _ in range(8)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda client: told(client.send(body)), clients))

    assert all(answer == answers[0] for answer in answers)
    assert len(rows(central, answers[0]["audit_id"])) == 1


def test_an_outcome_needs_a_reservation(central, host):
    """A success or failure of a reservation that was never made is refused with 409."""
    for kind in ("success", "failure"):
        answer = host.end(kind, new_id())

        assert (answer.status_code, answer.json()["code"]) == (409, "no_reservation")


def test_a_denial_of_the_agent_stands_alone(central, host):
    """A denial by the agent's own policy has no reservation before it: 201, one row, and no second one."""
    reservation = new_id()
    body = host.make("denied", reservation, project=None, environment=None, scopes=["no-such"])

    first, replay = host.send(body), host.send(body)
    second = host.end("denied", reservation)
    late = host.send(host.make("reserved", reservation))

    assert (first.status_code, replay.status_code) == (201, 201)
    assert (second.status_code, late.status_code) == (409, 409)
    assert [row["kind"] for row in rows(central, reservation)] == ["denied"]


def test_an_outcome_is_about_what_was_reserved(central, host):
    """An outcome that names another project, environment or scope than its reservation is refused with 422."""
    reservation = host.reserve()

    for other in ({"project": "other"}, {"environment": "wan"}, {"scopes": ["db"]}, {"scopes": ["web", "db"]}):
        answer = host.end("success", reservation, **other)
        assert (answer.status_code, answer.json()["code"]) == (422, "other_scope")

    assert host.end("success", reservation).status_code == 200


def test_only_what_was_released_is_cleared(central, host):
    """A cleared row needs a success before it, and there may be several."""
    opened, released = host.reserve(), host.reserve()
    host.end("success", released)

    assert host.clear(opened)["reason"] == "not_released"
    assert [host.clear(released)["status"], host.clear(released)["status"]] == [200, 200]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"project": "other"}, "project_not_allowed"),
        ({"environment": "wan"}, "environment_not_allowed"),
        ({"scopes": ["web", "admin"]}, "scope_not_allowed"),
        ({"scopes": []}, "no_scope"),
        ({"purpose": "curiosity"}, "purpose_not_allowed"),
        ({"caller": {"kind": "stranger"}}, "kind_not_allowed"),
        ({"caller": {"kind": "agent"}}, "run_ref_required"),
        ({"caller": {"kind": "worker"}, "job_id": ""}, "job_id_required"),
    ],
)
def test_a_denied_reservation_leaves_both_rows(central, host, more, reason):
    """Where policy says no: 403 with the audit id and reason, the agent's row and central's denial, and the same at a replay."""
    body = host.make("reserved", **more)

    answer, again = host.send(body), host.send(body)

    reserved, denied = rows(central, answer.json()["audit_id"])
    assert (answer.status_code, answer.json()["reason"], answer.json()["appended"]) == (403, reason, True)
    assert again.status_code == 403
    assert told(again) == told(answer)
    assert reserved["body"].encode() == body
    assert (denied["kind"], denied["host_id"]) == ("denied", "central")
    assert denied["fields"]["about_host"] == "server1"
    assert (denied["fields"]["project"], denied["fields"]["reason"]) == (json.loads(body)["project"], reason)


def test_a_denied_reservation_cannot_be_finalized(central, host):
    """After central's denial every outcome is refused with 409 that says so."""
    body = host.make("reserved", purpose="curiosity")
    host.send(body)

    answer = host.end("success", json.loads(body)["reservation"])

    assert (answer.status_code, answer.json()["ended_by"]) == (409, "denied")


def test_a_batch_is_taken_in_order_until_the_first_refusal(central, host):
    """A denial by policy goes on; a refused event stops the batch: the ones behind it are 424 and not appended."""
    bodies, chain = [], Chain("server1", host.chain.epoch)
    wishes = [
        fields("reserved", first := new_id()),
        fields("reserved", new_id(), purpose="curiosity"),
        fields("success", first),
        fields("success", first),
        fields("reserved", last := new_id()),
    ]
    for wish in wishes:
        bodies.append(chain.seal(wish))
        chain.accept(bodies[-1])

    results = host.batch(bodies)

    assert [result["status"] for result in results] == [201, 403, 200, 409, 424]
    assert [result["appended"] for result in results] == [True, True, True, False, False]
    assert rows(central, last) == []


def test_a_batch_again_has_the_same_answers(central, host):
    """A whole batch whose answer was lost is answered again as at first."""
    bodies, chain, reservation = [], Chain("server1", host.chain.epoch), new_id()
    for kind in ("reserved", "success", "cleared"):
        bodies.append(chain.seal(fields(kind, reservation)))
        chain.accept(bodies[-1])

    assert host.batch(bodies) == host.batch(bodies)
    assert len(rows(central, reservation)) == 3


def test_an_event_goes_to_the_route_of_its_kind(central, host):
    """A route takes its own kinds and its own reservation only, with 400 for others."""
    reservation = host.reserve()
    wrong = [
        ("/v1/audit/reservations", host.make("failure", reservation)),
        (f"/v1/audit/reservations/{reservation}/finalize", host.make("reserved")),
        (f"/v1/audit/reservations/{reservation}/finalize", host.make("success", new_id())),
    ]

    answers = [host.client.post(path, content=body) for path, body in wrong]

    assert [answer.status_code for answer in answers] == [400, 400, 400]


def test_an_open_reservation_is_abandoned_in_time(tmp_path: Path):
    """A reservation without an outcome gets exactly one abandoned row after its time; a late outcome gets 409 (F22, F25)."""
    with CentralProcess(tmp_path, reservation_ttl="400ms") as central:
        host = Host(central)
        kept = host.reserve()
        host.end("success", kept)
        lost = [host.reserve() for _ in range(5)]

        wait_until(lambda: len(central.events(kind="abandoned")) >= 5)
        late = host.end("success", lost[0])
        abandoned = central.events(kind="abandoned")

    assert sorted(row["reservation_id"] for row in abandoned) == sorted(lost)
    assert {(row["host_id"], row["fields"]["about_host"], row["fields"]["project"]) for row in abandoned} == {
        ("central", "server1", "prism")
    }
    assert (late.status_code, late.json()["ended_by"]) == (409, "abandoned")


def test_two_replicas_abandon_once(tmp_path: Path):
    """With two centrals sweeping one database, each open reservation still gets one abandoned row."""
    with CentralProcess(tmp_path, reservation_ttl="400ms") as central:
        twin = CentralProcess(tmp_path, reservation_ttl="400ms")
        twin.config_file = tmp_path / "twin.toml"
        with twin:
            host = Host(central)
            lost = [host.reserve() for _ in range(30)]
            wait_until(lambda: len(central.events(kind="abandoned")) >= 30)
            assert host.end("failure", lost[0]).status_code == 409

        abandoned = [row["reservation_id"] for row in central.events(kind="abandoned")]

    assert sorted(abandoned) == sorted(lost)


def test_a_chain_may_continue_at_another_replica(tmp_path: Path):
    """What a replica remembers of a chain is not believed before a refusal: a host may change between replicas freely."""
    with CentralProcess(tmp_path) as central:
        twin = CentralProcess(tmp_path)
        twin.config_file = tmp_path / "twin.toml"
        twin.agent_tokens = central.agent_tokens
        with twin:
            host = Host(central)
            clients = [host.client, Host(twin).client]
            for turn in range(10):
                host.client = clients[turn % 2]
                reservation = host.reserve()
                host.client = clients[(turn // 2) % 2]
                assert host.end("success", reservation).status_code == 200
