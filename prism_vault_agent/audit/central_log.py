"""The audit log of a render, on central: the five verbs of ``render.AuditLog`` over the outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.audit import rows
from prism_vault_agent.audit.answers import check_reserved, check_success
from prism_vault_agent.audit.event import audit_id, new_id
from prism_vault_agent.model import Reservation, ReservationId

if TYPE_CHECKING:
    from prism_vault_agent.audit.answers import Answer
    from prism_vault_agent.audit.outbox import Outbox
    from prism_vault_agent.model import Caller, Grant, Receipt, Request, Resolution
    from prism_vault_agent.policy.decide import Denial

log = structlog.get_logger()


class CentralLog:
    """Central's audit log, as a render uses it. ``seconds`` bounds the wait for one record."""

    def __init__(self, outbox: Outbox, seconds: float) -> None:
        """Send through ``outbox``."""
        self._outbox = outbox
        self._seconds = seconds

    async def reserve(self, grant: Grant) -> Reservation:
        """Record the intent durably."""
        reservation = ReservationId(new_id())
        answer = await self._outbox.send(rows.reserved(grant, reservation), self._seconds)
        check_reserved(answer, reservation)
        return Reservation(reservation, audit_id(reservation), grant)

    async def succeed(self, resolution: Resolution) -> Receipt:
        """Record durably that the values are about to be released."""
        answer = await self._outbox.send(rows.success(resolution), self._seconds)
        return check_success(answer, resolution)

    def fail(self, reservation: Reservation, error: BaseException) -> None:
        """Record that nothing was released. Where a success whose answer was lost stands, say that it was not delivered."""

        def ended_already(answer: Answer) -> None:
            if answer.get("ended") == "success":
                self.clear(reservation, "not_delivered")

        fields = rows.failure(reservation, error)
        log.info("render.failed", audit_id=reservation.audit_id, kind=fields["kind"], reason=fields["reason"])
        self._outbox.tell(fields, ended_already)

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

    def clear(self, reservation: Reservation, reason: str) -> None:
        """Record that a release is no longer out there."""
        log.info("render.cleared", audit_id=reservation.audit_id, reason=reason)
        self._outbox.tell(rows.cleared(reservation, reason), durable=reason != "exited")
