"""Central's rules for one batch of events and a journal, in memory, with faults before and after a batch is taken."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prism_vault_agent.audit.event import FIRST, Chain, digest, new_id, parse
from prism_vault_agent.audit.outbox import Outbox
from prism_vault_agent.errors import AuditUnavailable, CannotCreate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from prism_vault_agent.audit.event import Fields

ENDS = ("success", "failure", "denied", "abandoned")


@dataclass
class LogInMemory:
    """Takes batches as central does. ``faults`` yields what happens to each: ``taken``, ``lost`` or ``answer-lost``."""

    faults: Iterator[str] = field(default_factory=lambda: iter(()))
    bodies: list[bytes] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)

    @property
    def fields(self) -> list[dict[str, Any]]:
        """All events on the log."""
        return [json.loads(body) for body in self.bodies]

    def rows(self, reservation: object) -> list[str]:
        """The kinds of one reservation's rows."""
        return [fields["kind"] for fields in self.fields if fields["reservation"] == reservation]

    async def __call__(self, bodies: Sequence[bytes]) -> list[dict[str, Any]]:
        """Take one batch, or fail it."""
        self.batches.append(len(bodies))
        fault = next(self.faults, "taken")
        if fault == "lost":
            raise AuditUnavailable("connection refused")
        answers: list[dict[str, Any]] = []
        for body in bodies:
            stopped = answers and not answers[-1]["appended"]
            answers.append({"status": 424, "appended": False, "reason": "not_tried"} if stopped else self._take(body))
        if fault == "answer-lost":
            raise AuditUnavailable("no answer")
        return answers

    def _take(self, body: bytes) -> dict[str, Any]:
        fields: Fields = parse(body)
        known = {each["event_id"]: n for n, each in enumerate(self.fields)}
        if fields["event_id"] in known:
            n = known[str(fields["event_id"])]
            if self.bodies[n] != body:
                return {"status": 422, "appended": False, "reason": "event_id_reused"}
            return {"status": 200, "appended": True, "n": n + 1, "reason": ""}
        chain = [each for each in self.bodies if json.loads(each)["epoch"] == fields["epoch"]]
        if (fields["seq"], fields["prev"]) != (len(chain) + 1, digest(chain[-1]) if chain else FIRST):
            return {"status": 409, "appended": False, "reason": "chain"}
        if fields["kind"] in self.forbidden:
            return {"status": 413, "appended": False, "reason": "too_large"}
        ended = next((kind for kind in self.rows(fields["reservation"]) if kind in ENDS), "")
        if fields["kind"] in ENDS and ended:
            return {"status": 409, "appended": False, "reason": "reservation_ended", "ended_by": ended}
        self.bodies.append(body)
        return {"status": 201, "appended": True, "n": len(self.bodies), "reason": ""}


@dataclass
class Kept:
    """A journal in memory, which may be out of room. ``room`` is for how many events there is any; ``writes`` counts."""

    events: dict[str, Fields] = field(default_factory=dict)
    ever: list[str] = field(default_factory=list)
    full: bool = False
    room: int = 1_000_000
    writes: int = 0

    async def keep(self, *events: Fields) -> None:
        """Keep all of them, or none."""
        if self.full or len(self.events) + len(events) > self.room:
            raise CannotCreate("no room")
        self.writes += 1
        self.events |= {str(fields["event_id"]): fields for fields in events}
        self.ever += [str(fields["event_id"]) for fields in events]

    async def drop(self, *event_ids: str) -> None:
        """Forget them."""
        if self.full:
            raise CannotCreate("no room")
        self.writes += 1
        for event_id in event_ids:
            del self.events[event_id]


def event(kind: str = "cleared", reservation_id: str = "", **more: object) -> Fields:
    """Return an event."""
    return {"kind": kind, "event_id": new_id(), "reservation": reservation_id or new_id(), **more}


def play_with(log: LogInMemory, work: Callable[[Outbox], Awaitable[Any]], journal: Kept | None = None) -> Any:
    """Run ``work`` while an outbox to ``log`` runs, then let it send the rest."""

    async def play() -> Any:
        outbox = Outbox(Chain("h", new_id()), log, journal or Kept())
        running = asyncio.create_task(outbox.run())
        try:
            async with asyncio.timeout(20):
                result = await work(outbox)
                await outbox.flush(20)
        finally:
            running.cancel()
        assert outbox.queued == 0
        return result

    return asyncio.run(play())
