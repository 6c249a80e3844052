"""What central's answer to one event means for the render that waits for it. Pure; ``docs/protocol.md`` lists the fields."""

from __future__ import annotations

import json
from typing import Any, Final

from prism_vault_agent.audit.event import audit_id
from prism_vault_agent.errors import AuditUnavailable, Denied
from prism_vault_agent.model import Receipt, ReservationId, Resolution

Answer = dict[str, Any]
BATCH: Final = "/v1/audit/events:batch"
LARGEST: Final = 1024 * 1024
# The status of a replica that cannot record now; another one may.
AWAY: Final = 503


def results(status: int, content: bytes, expected: int) -> list[Answer]:
    """Return the answer to each event of a batch, or raise ``AuditUnavailable``: what we do not understand confirms nothing."""
    if status != 200:
        raise AuditUnavailable(f"central answered with status {status}", mend="see central's log")
    try:
        if len(content) > LARGEST:
            raise ValueError
        found = json.loads(content)["results"]
        if len(found) != expected or not all(isinstance(answer["status"], int) for answer in found):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AuditUnavailable("central's answer has the wrong shape", mend="check the URL of [central]") from None
    return list(found)


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
    raise _not_taken(answer)


def check_success(answer: Answer, resolution: Resolution) -> Receipt:
    """Return the receipt, or raise: a success that is not on the log releases nothing."""
    if _is_yes(answer):
        return Receipt(resolution, answer["n"])
    raise _not_taken(answer)


def _is_yes(answer: Answer) -> bool:
    """Tell whether the event is on the log, and where."""
    return answer["status"] in (200, 201) and answer.get("appended") is True and isinstance(answer.get("n"), int)


def _not_taken(answer: Answer) -> AuditUnavailable:
    why = answer.get("message") or answer.get("reason") or answer["status"]
    return AuditUnavailable(
        f"central refused the audit record: {why}",
        mend="see central's log",
        reason=str(answer.get("reason") or "refused"),
    )
