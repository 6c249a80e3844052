"""Signals on a host: what a revocation means is ended whatever else is away, a rotation is looked into, each is answered."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fault_proxy import Fault, always
from tests.support.signalled import DEAF, complete, evidence, order, signalled, started, status_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.central import CentralProcess
    from tests.support.stack import Stack


@pytest.fixture(scope="module")
def made() -> Iterator[Stack]:
    """Return a stack of this file's own."""
    with signalled() as running:
        yield running


@pytest.mark.parametrize(
    "asked",
    [{"scope": "web"}, {"reference": "vault://secret/web"}, {"run_ref": "mine"}, {"scope": "web", "host": "server1"}],
    ids="-".join,
)
def test_a_revocation_ends_what_it_means(made, asked):
    """Runs that fulfil every condition end with SIGTERM and a row that names the signal; others go on; the evidence is whole."""
    mine, other = started(made.agent, "mine"), started(made.agent, "not-mine", "other")
    number = order(made.central, "revocations", **asked, reason="leaked")
    assert status_of(mine) == -signal.SIGTERM
    assert other.poll() is None
    (host,) = complete(made.central, number)["hosts"]
    other.kill()
    status_of(other)
    cleared = [row for row in made.rows() if row["kind"] == "cleared" and row.get("signal") == number]

    assert (host["host"], host["state"], host["ended"], host["cleared"], host["left"]) == ("server1", "cleared", 1, 1, 0)
    assert [(row["reason"], row["run_ref"]) for row in cleared] == [("revoked", "mine")]
    assert host["releases"] == [{**host["releases"][0], "audit_id": f"pva_{cleared[0]['reservation']}", "state": "cleared"}]
    assert host["received_at"] <= host["done_at"]


def test_an_emergency_leaves_no_time(made):
    """In an emergency, a run that ignores SIGTERM and has an hour of grace is killed at once; everything means everything."""
    children = [started(made.agent, "deaf", "slow", DEAF), started(made.agent, "other", "other")]
    number = order(made.central, "revocations", everything=True, emergency=True)
    assert [status_of(child) for child in children] == [-signal.SIGKILL] * 2
    found = complete(made.central, number)

    assert found["states"] == {"cleared": 1}
    assert found["hosts"][0]["ended"] == 2


def test_an_emergency_overtakes_a_grace(made):
    """A run that is being ended with patience is killed when an emergency means it too; both are answered."""
    child = started(made.agent, "patient", "slow", DEAF)
    first = order(made.central, "revocations", scope="slow")
    wait_until(lambda: evidence(made.central, first)["states"] == {"ending": 1})
    assert child.poll() is None
    second = order(made.central, "revocations", scope="slow", emergency=True)
    assert status_of(child) == -signal.SIGKILL
    assert complete(made.central, first)["states"] == {"cleared": 1}
    assert complete(made.central, second)["states"] == {"cleared": 1}


def test_another_project_is_left_alone(made):
    """A revocation of everything within one project ends nothing of another."""
    mine, other = started(made.agent, "mine"), started(made.agent, "elsewhere", "other")
    number = order(made.central, "revocations", everything=True, project="elsewhere")
    assert status_of(other) == -signal.SIGTERM
    complete(made.central, number)
    assert mine.poll() is None
    mine.kill()
    status_of(mine)


def test_a_rotation_is_looked_into_at_once(made):
    """After a rotation the agent asks the provider, whose next turn is a minute away: what was withdrawn ends."""
    made.openbao.kv_put("secret/other", {"key": "next"})
    child = started(made.agent, "withdrawn", "other")
    made.openbao.must("DELETE", "secret/data/other")
    number = order(made.central, "rotations", reference="vault://secret/other#key")
    assert status_of(child) == -signal.SIGTERM
    wait_until(lambda: [row for row in _answers(made.central) if row["signal"] == number])
    made.openbao.kv_put("secret/other", {"key": "again"})

    (answer,) = [row for row in _answers(made.central) if row["signal"] == number]
    assert (answer["reason"], answer["found"]) == ("signal_done", 1)


def test_ending_waits_for_nobody(made):
    """With the provider away and central taking no record, what a revocation means ends; the record follows later."""
    child = started(made.agent, "cut-off", "slow")
    lost = always(Fault("reset"), lambda seen: seen.method == "POST")
    with made.to_openbao.failing(always(Fault("reset"))), made.to_central.failing(lost):
        number = order(made.central, "revocations", run_ref="cut-off")
        assert status_of(child) == -signal.SIGTERM
        found = evidence(made.central, number)
        assert (found["complete"], found["hosts"][0]["state"], found["hosts"][0]["left"]) == (False, "silent", 1)
    assert complete(made.central, number)["hosts"][0]["cleared"] == 1


def test_nothing_is_missed_over_a_restart(made):
    """What was ordered while no agent ran is answered by the next one; a run that it does not know is told as unwatched."""
    child = started(made.agent, "orphan")
    before = made.agent.status()["signals"]["last"]
    made.agent.stop()
    try:
        number = order(made.central, "revocations", run_ref="orphan")
        assert evidence(made.central, number)["states"] == {"silent": 1}
        (made.agent.directory / "state/runs").unlink()
        made.agent.start()
        wait_until(lambda: evidence(made.central, number)["states"] == {"unwatched": 1}, 30)
    finally:
        child.kill()
        status_of(child)
    found = evidence(made.central, number)

    assert made.agent.status()["signals"]["last"] == number == before + 1
    assert (found["complete"], found["hosts"][0]["unwatched"]) == (False, 1)


def test_status_tells_of_the_stream(made):
    """``status`` shows that the stream is followed, and the last signal; and, while central is away, that it is not."""
    number = order(made.central, "rotations", scope="web")
    wait_until(lambda: made.agent.status()["signals"]["last"] == number)
    wait_until(lambda: made.agent.status()["signals"]["unanswered"] == 0)
    assert (made.agent.directory / "state" / "signals").read_text() == f"{number}\n"
    made.central.stop()
    try:
        wait_until(lambda: not made.agent.status()["signals"]["connected"])
    finally:
        made.central.start()
    wait_until(lambda: made.agent.status()["signals"]["connected"], 60)


def _answers(central: CentralProcess) -> list[dict[str, Any]]:
    """Return what hosts said about signals."""
    return [event["fields"] for event in central.events(kind="admin") if event["fields"].get("reason") == "signal_done"]
