"""The audit log of one render without an agent: each event is sent alone, and waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from prism_vault_agent.audit import rows
from prism_vault_agent.audit.answers import MISSING, WRONG, Answer, RateLimited, check_reserved, check_success, not_taken
from prism_vault_agent.audit.event import Chain, Fields, audit_id, new_id
from prism_vault_agent.errors import AuditUnavailable, PrismVaultError
from prism_vault_agent.model import Caller, Grant, Receipt, Request, Reservation, ReservationId, Resolution
from prism_vault_agent.policy.decide import Denial

PAUSE: Final = 0.1


class DirectLog:
    """Central's audit log, as a blocking render uses it; an intent or a success that cannot be recorded ends the render.

    ``post`` sends one sealed event and raises ``AuditUnavailable`` where central's answer is unknown. ``deadline`` is
    CLOCK_MONOTONIC seconds; ``patience`` bounds, in seconds, the wait for a record of what has already failed.
    """

    def __init__(
        self, host: str, post: Callable[[bytes, float], Answer], *, deadline: float, patience: float, installation: str = ""
    ) -> None:  # fmt: skip
        """Start a chain of our own, as every sender does; ``installation`` is that of the agent beside us, where we know it."""
        self._installation = installation
        self._chain = Chain(host, new_id())
        self._post = post
        self._deadline = deadline
        self._patience = patience
        self._in_doubt = b""

    async def reserve(self, grant: Grant) -> Reservation:
        """Record the intent durably."""
        reservation = ReservationId(new_id())
        check_reserved(self._send(rows.reserved(grant, reservation, self._installation), self._deadline), reservation)
        return Reservation(reservation, audit_id(reservation), grant)

    async def succeed(self, resolution: Resolution) -> Receipt:
        """Record durably that the values are about to be released."""
        return check_success(self._send(rows.success(resolution), self._deadline), resolution)

    def fail(self, reservation: Reservation, error: BaseException) -> None:
        """Record that nothing was released; a reservation that cannot be told ends as abandoned at central.

        Where a success whose answer was lost stands, say that it was not delivered.
        """
        fields = rows.failure(reservation, error)
        if self._tell(fields).get("ended_by") == "success":
            self._tell(rows.not_delivered(fields))

    def deny(self, caller: Caller, request: Request, denial: Denial) -> str:
        """Record a denial by our own configuration."""
        reservation = new_id()
        self._tell(rows.denied(caller, request, denial, reservation))
        return audit_id(reservation)

    def clear(self, reservation: Reservation, reason: str) -> None:
        """Record that what was announced never reached a command."""
        self._tell(rows.cleared(reservation, reason))

    def _tell(self, fields: Fields) -> Answer:
        try:
            return self._send(fields, time.monotonic() + self._patience)
        except PrismVaultError:
            return {}  # nothing was released, and central sees the reservation end

    def _send(self, fields: Fields, deadline: float) -> Answer:
        """Return central's answer; an event whose answer was lost goes first, because the chain may go on behind it."""
        if self._in_doubt:
            self._exchange(self._in_doubt, deadline)
        return self._exchange(self._chain.seal(fields), deadline)

    def _exchange(self, body: bytes, deadline: float) -> Answer:
        """Return central's answer, asking with the same bytes again until there is one."""
        self._in_doubt = body
        last: AuditUnavailable | None = None
        while True:
            try:
                answer = self._post(body, deadline)
            except AuditUnavailable as error:
                # The last attempt is cut short by the deadline: what a wrong receipt was about says more.
                last = last if last is not None and last.reason in (MISSING, WRONG) else error
                pause = error.seconds if isinstance(error, RateLimited) else PAUSE
                if time.monotonic() + pause >= deadline:
                    raise not_taken("central did not take the audit record", last) from None
                time.sleep(pause)
                continue
            self._in_doubt = b""
            if answer.get("appended"):
                self._chain.accept(body)
            return answer
