"""A render's view of the audit log, over requests and answers that are lost."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit import outbox as module
from prism_vault_agent.audit.central_log import CentralLog
from prism_vault_agent.audit.event import Chain, Fields, new_id, parse
from prism_vault_agent.audit.outbox import Outbox
from prism_vault_agent.audit.witness import Unwitnessed
from prism_vault_agent.errors import AuditUnavailable, Denied
from tests.audit.log_in_memory import Kept, LogInMemory, event, play_with
from tests.audit.nouns import grant, reservation, resolution

if TYPE_CHECKING:
    pass

FAULTS = ("taken", "lost", "answer-lost")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LINGER", "PAUSE_FIRST", "PAUSE_AWAITED", "PAUSE_LONGEST"):
        monkeypatch.setattr(module, name, 0.0)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("behind", [0, 1])
def test_f20_f21_f23_f24_a_lost_request_or_answer_is_asked_for_again(fault: str, behind: int) -> None:
    """A reservation and its success survive a lost request or answer: one row each, and the render goes on."""
    log = LogInMemory(iter(["taken"] * behind + [fault]))

    async def work(audit: CentralLog) -> None:
        held = await audit.reserve(grant())
        receipt = await audit.succeed(_for(held))
        assert receipt.n == 2

    play_with(log, lambda outbox: work(CentralLog(outbox, 5, Unwitnessed())))
    assert [each["kind"] for each in log.fields] == ["reserved", "success"]


def _for(held: Any) -> Any:
    made = resolution()
    return type(made)(held, made.names, made.leases, made.held)


@pytest.mark.parametrize("fault", ["lost", "answer-lost"])
def test_f24_a_success_whose_answer_never_came_is_taken_back(fault: str) -> None:
    """Where nobody knows whether the success is on the log, nothing is released, and the log ends by saying so."""
    log = LogInMemory(itertools.chain(["taken"], [fault] * 1, ["lost"] * 5000))

    async def work(audit: CentralLog) -> None:
        held = await audit.reserve(grant())
        audit._seconds = 0.001
        with pytest.raises(AuditUnavailable) as raised:
            await audit.succeed(_for(held))
        audit.fail(held, raised.value)

    play_with(log, lambda outbox: work(CentralLog(outbox, 5, Unwitnessed())))
    assert [each["kind"] for each in log.fields] == ["reserved", "success", "cleared"]
    assert log.fields[-1]["reason"] == "not_delivered"


def test_f25_a_success_after_the_reservation_has_ended_is_refused() -> None:
    """A reservation that central has abandoned takes no success: the render fails with central's reason."""
    log = LogInMemory()

    async def work(audit: CentralLog) -> None:
        held = await audit.reserve(grant())
        log.bodies.append(Chain("central", new_id()).seal({"kind": "abandoned", "event_id": new_id(), "reservation": held.id}))
        with pytest.raises(AuditUnavailable) as raised:
            await audit.succeed(_for(held))
        assert raised.value.reason == "reservation_ended"
        audit.fail(held, raised.value)

    play_with(log, lambda outbox: work(CentralLog(outbox, 5, Unwitnessed())))
    assert [each["kind"] for each in log.fields] == ["reserved", "abandoned"]


def test_central_denies_by_its_own_policy() -> None:
    """A 403 for a reservation is a denial with central's reason and the audit id of the row that says so."""
    log = LogInMemory()

    async def denies(bodies: Any) -> list[Any]:
        answers = await log(bodies)
        return [{**answer, "status": 403, "reason": "not_allowed", "message": "no policy allows it"} for answer in answers]

    async def play() -> None:
        outbox = Outbox(Chain("h", new_id()), denies, Kept())
        running = asyncio.create_task(outbox.run())
        with pytest.raises(Denied, match="central denied it: no policy allows it") as raised:
            await CentralLog(outbox, 5, Unwitnessed()).reserve(grant())
        running.cancel()
        assert raised.value.reason == "not_allowed"
        assert raised.value.audit_id == f"pva_{parse(log.bodies[0])['reservation']}"

    asyncio.run(play())


def test_what_an_earlier_agent_kept_is_told_once_and_taken_back_where_needed() -> None:
    """A kept failure whose success stands on the log is followed by the row that takes the success back."""
    log = LogInMemory()
    journal = Kept()
    held = reservation()

    async def work(audit: CentralLog) -> None:
        await audit._outbox.send({**event("success", held.id)}, 5)
        fields: Fields = {**event("failure", held.id), "project": "prism", "environment": "lan", "scopes": ["web"]}
        audit._outbox.journal.events[str(fields["event_id"])] = fields  # type: ignore[attr-defined]  # ours is in memory
        audit.resume([fields])

    play_with(log, lambda outbox: work(CentralLog(outbox, 5, Unwitnessed())), journal)
    assert [each["kind"] for each in log.fields] == ["success", "cleared"]
    assert log.fields[1]["scopes"] == ["web"]
    assert not journal.events
