"""The audit log of a render, on central: the five verbs of ``render.AuditLog`` over the outbox."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from prism_vault_agent.audit import rows
from prism_vault_agent.audit.answers import check_reserved, check_success, of_central
from prism_vault_agent.audit.event import Fields, audit_id, new_id
from prism_vault_agent.audit.name import Name
from prism_vault_agent.model import Reservation, ReservationId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prism_vault_agent.audit.answers import Answer
    from prism_vault_agent.audit.outbox import Outbox
    from prism_vault_agent.audit.witness import Unwitnessed, Witness
    from prism_vault_agent.model import Caller, Grant, Receipt, Request, Resolution
    from prism_vault_agent.policy.decide import Denial
    from prism_vault_agent.scope import ScopeName

log = structlog.get_logger()

# Of the longest wait for one answer: a record whose first answer is lost can be asked for again.
PATIENCE: Final = 1.5


class Takings(Protocol):
    """What releases have taken at the provider, which goes back when the log says that they are over."""

    def still(self, reservation: Reservation) -> None:
        """Raise where something that a release took has ended by itself."""

    def ended(self, reservation: Reservation, why: str) -> None:
        """Begin to give back what a release took. Never waits, never raises."""


class _Nothing:
    def still(self, reservation: Reservation) -> None:
        """Nothing was taken."""

    def ended(self, reservation: Reservation, why: str) -> None:
        """Nothing is given back."""


class CentralLog:
    """Central's audit log, as a render uses it. ``seconds`` is the longest wait for one answer of central's."""

    def __init__(self, outbox: Outbox, seconds: float, witness: Witness | Unwitnessed, name: Name | None = None) -> None:
        """Send through ``outbox``; what ``witness`` does not vouch for is asked for nothing, and releases nothing.

        ``name`` tells central which installation we are, and is told whether that may release.
        """
        self._outbox = outbox
        self.name = name or Name("")
        self._witness = witness
        self._seconds = seconds * PATIENCE
        self.leases: Takings = _Nothing()
        # Are told of each release whose end can no longer be lost; and those whose end an earlier agent has kept, and its rows.
        self.forget: tuple[Callable[[str], None], ...] = ()
        self._ends_kept: set[str] = set()
        # Returns how long the rotation of a scope has taken so far, in milliseconds to each stage.
        self.took: Callable[[ScopeName], Mapping[str, int]] = lambda _: {}

    async def reserve(self, grant: Grant, meanwhile: Callable[[ReservationId], object] | None = None) -> Reservation:
        """Record the intent durably; what is begun ``meanwhile``, under that name, must be such as can be taken back."""
        await self._witness.vouch(self._seconds)
        reservation = ReservationId(new_id())
        if meanwhile is not None:
            meanwhile(reservation)
        fields = rows.reserved(grant, reservation, self.name.installation)
        self.name.answered(answer := await self._outbox.send(fields, self._seconds))
        check_reserved(answer, reservation)
        return Reservation(reservation, audit_id(reservation), grant)

    async def succeed(self, resolution: Resolution) -> Receipt:
        """Record durably that the values are about to be released."""
        await self._witness.vouch(self._seconds)
        self.leases.still(resolution.reservation)
        self.name.answered(answer := await self._outbox.send(rows.success(resolution), self._seconds))
        receipt = check_success(answer, resolution)
        if refusal := self._witness.refusal:  # found while central was asked
            raise refusal
        self.leases.still(resolution.reservation)  # the host may have slept meanwhile
        return receipt

    def fail(self, reservation: Reservation, error: BaseException) -> None:
        """Record that nothing was released. Where a success whose answer was lost stands, say that it was not delivered."""
        fields = rows.failure(reservation, error)
        log.info(
            "render.failed", audit_id=reservation.audit_id, kind=fields["kind"], reason=fields["reason"], **of_central(error)
        )
        self._outbox.tell(fields, partial(self._ended_already, fields))
        self.leases.ended(reservation, "failed")

    def resume(self, waiting: Iterable[Fields]) -> None:
        """Send what an earlier agent kept and could not tell central."""
        for fields in waiting:
            self._ends_kept.add(str(fields["reservation"] if fields["kind"] == "cleared" else fields["event_id"]))
            self._outbox.tell(fields, partial(self._ended_already, fields), kept=True)

    def _ended_already(self, fields: Fields, answer: Answer) -> None:
        """Take back a success whose answer was lost: it stands on the log, and nothing was released for it."""
        if fields["kind"] in ("failure", "denied") and answer.get("ended_by") == "success":
            log.info("render.cleared", audit_id=audit_id(str(fields["reservation"])), reason="not_delivered")
            self._outbox.tell(rows.not_delivered(fields), durable=True)

    def deny(self, caller: Caller, request: Request, denial: Denial) -> str:
        """Record a denial by our own policy."""
        reservation = new_id()
        log.info(
            "render.denied",
            audit_id=audit_id(reservation),
            rule=denial.rule,
            scope=denial.scope,
            uid=caller.uid,
            pid=caller.pid,
        )
        self._outbox.tell(rows.denied(caller, request, denial, reservation))
        return audit_id(reservation)

    def note(self, reason: str, message: str, stages: Mapping[str, int] | None = None) -> None:
        """Record what became of the host's own configuration; ``stages`` are milliseconds of a rotation."""
        self._outbox.tell(rows.admin(reason, message, stages), durable=True)

    def record(self, fields: Fields, safe: Callable[[], None]) -> None:
        """Record a row of what was done; ``safe`` is called when it can no longer be lost: at once where the journal has it."""
        if str(fields["event_id"]) in self._ends_kept:
            safe()
        else:
            self._outbox.tell(fields, durable=True, safe=safe)

    def answer(
        self,
        signal: int,
        reason: str,
        counts: Mapping[str, int],
        *,
        message: str = "",
        then: Callable[[Answer], None] | None = None,
    ) -> None:
        """Record what became of a signal of central's; ``then`` is told when central has it."""
        self._outbox.tell(rows.answer(signal, reason, counts, message), then, durable=True)

    def clear(self, reservation: Reservation, reason: str, signal: int | None = None) -> None:
        """Record that a release is no longer out there; what is known of it is forgotten when that can no longer be lost."""
        log.info("render.cleared", audit_id=reservation.audit_id, reason=reason)
        if reservation.id in self._ends_kept:
            self._forget(reservation.id)
        else:
            safe = partial(self._forget, reservation.id)
            stages = self.took(reservation.grant.scopes[0].name) if reason == "rotated" else None
            self._outbox.tell(rows.cleared(reservation, reason, signal, stages), durable=reason != "exited", safe=safe)
        self.leases.ended(reservation, reason)

    def _forget(self, reservation: str) -> None:
        for forget in self.forget:
            forget(reservation)
