"""What central's answer to one event means for the render that waits for it. Pure; ``docs/protocol.md`` lists the fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from prism_vault_agent.audit.event import audit_id
from prism_vault_agent.errors import AuditUnavailable, Denied, PrismVaultError
from prism_vault_agent.model import Receipt, ReservationId, Resolution

Answer = dict[str, Any]
# Is told the events that were sent, the answer to each, and the receipt; raises ``AuditUnavailable`` where that proves nothing.
Check = Callable[[Sequence[bytes], list[Answer], Any], object]
BATCH: Final = "/v1/audit/events:batch"
LARGEST: Final = 1024 * 1024
# The status of a replica that cannot record now; another one may.
AWAY: Final = 503
# The reasons of an answer that appends without proving it, and of one that proves something else.
MISSING: Final = "receipt_missing"
WRONG: Final = "receipt_wrong"
# What to do where a log is not what it was.
REFUSED: Final = "nothing is released until that is settled: see prism-vault witness show"


def results(status: int, content: bytes, bodies: Sequence[bytes], check: Check | None = None) -> list[Answer]:
    """Return the answer to each event of a batch, or raise ``AuditUnavailable``: what we do not understand confirms nothing.

    ``check`` looks at the receipt; without one, central is believed.
    """
    if status != 200:
        raise AuditUnavailable(f"central answered with status {status}", mend="see central's log")
    try:
        if len(content) > LARGEST:
            raise ValueError
        told = json.loads(content)
        found = told["results"]
        if len(found) != len(bodies) or not all(isinstance(answer["status"], int) for answer in found):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AuditUnavailable("central's answer has the wrong shape", mend="check the URL of [central]") from None
    if check is not None:
        check(bodies, found, told.get("receipt"))
    return list(found)


def not_taken(told: str, last: PrismVaultError | None) -> AuditUnavailable:
    """Return the error for an event whose answer did not come in time, where ``last`` is what the last attempt ended with."""
    why = f"{told} ({last.message})" if last else told
    if last is not None and last.reason in (MISSING, WRONG):
        return AuditUnavailable(why, mend=last.mend, reason=last.reason)
    return AuditUnavailable(why, mend="retry when central is up")


def check_reserved(answer: Answer, reservation: ReservationId) -> None:
    """Raise what central's answer to a reservation says, if it is not yes."""
    if _is_yes(answer):
        return
    if answer["status"] == 403:
        raise Denied(
            f"central denied it: {answer.get('message') or answer.get('reason')}",
            mend="ask for a policy at central that allows this scope, host, kind and purpose",
            reason=str(answer.get("reason") or "central_policy"),
            audit_id=audit_id(reservation),
        )
    raise _refused(answer)


def check_success(answer: Answer, resolution: Resolution) -> Receipt:
    """Return the receipt, or raise: a success that is not on the log releases nothing."""
    if _is_yes(answer):
        return Receipt(resolution, answer["n"])
    raise _refused(answer)


def _is_yes(answer: Answer) -> bool:
    """Tell whether the event is on the log, and where."""
    return answer["status"] in (200, 201) and answer.get("appended") is True and isinstance(answer.get("n"), int)


def _refused(answer: Answer) -> AuditUnavailable:
    why = answer.get("message") or answer.get("reason") or answer["status"]
    return AuditUnavailable(
        f"central refused the audit record: {why}",
        mend="see central's log",
        reason=str(answer.get("reason") or "refused"),
    )
