"""What central's answer to one event means for the render that waits for it. Pure; ``docs/protocol.md`` lists the fields."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from prism_vault_agent.audit.event import NAMELESS, SUPERSEDED, audit_id
from prism_vault_agent.errors import AuditUnavailable, Denied, PrismVaultError
from prism_vault_agent.model import Receipt, ReservationId, Resolution

Answer = dict[str, Any]
# What central calls a request, in its log and in X-Request-Id, and its words for a problem: nothing else gets into our log.
REQUEST_ID: Final = re.compile("[0-9a-f]{16}")
CODE: Final = re.compile("[a-z_]{1,40}")
# Is told the events that were sent, the answer to each, and the receipt; raises ``AuditUnavailable`` where that proves nothing.
Check = Callable[[Sequence[bytes], list[Answer], Any], object]
BATCH: Final = "/v1/audit/events:batch"
LARGEST: Final = 1024 * 1024
# The status of a replica that cannot record now; another one may.
AWAY: Final = 503
# The status of a central that takes no more of this host for now; neither does another replica.
LIMITED: Final = 429
LONGEST_REST: Final = 60.0
# The status of an event behind one that central refused: it was not looked at.
NOT_ATTEMPTED: Final = 424
# The reasons of an answer that appends without proving it, and of one that proves something else.
MISSING: Final = "receipt_missing"
WRONG: Final = "receipt_wrong"
# What to do where a log is not what it was.
REFUSED: Final = "nothing is released until that is settled: see prism-vault witness show"


class RateLimited(AuditUnavailable):
    """Central takes no more of this host for ``seconds``. Nothing was queued; the same is sent again, to the same replica."""

    reason = "rate_limited"

    def __init__(self, seconds: float, request_id: str = "") -> None:
        """Say for how long, and what central calls the request."""
        super().__init__(
            f"central takes no more of this host for {math.ceil(seconds)} s: it has asked for more than its share",
            mend="retry then, or have [limits] raised at central",
        )
        self.seconds = seconds
        self.code, self.request_id = self.reason, request_id if REQUEST_ID.fullmatch(request_id) else ""


def limited(headers: Mapping[str, str]) -> RateLimited:
    """Return the error that a 429 is, by its ``Retry-After`` in seconds (RFC 9110, section 10.2.3): from one to sixty."""
    retry_after = headers.get("retry-after", "")
    asked = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 1.0
    return RateLimited(min(max(asked, 1.0), LONGEST_REST), headers.get("x-request-id", ""))


def results(
    status: int, content: bytes, bodies: Sequence[bytes], check: Check | None = None, request_id: str = ""
) -> list[Answer]:
    """Return the answer to each event of a batch, or raise ``AuditUnavailable``: what we do not understand confirms nothing.

    ``check`` looks at the receipt; without one, central is believed. Each answer gets ``request_id`` beside what central says.
    """
    if status != 200:
        raise problem("central answered", status, content)
    try:
        if len(content) > LARGEST:
            raise ValueError
        told = json.loads(content)
        found = told["results"]
        if len(found) != len(bodies) or not all(isinstance(answer["status"], int) for answer in found):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AuditUnavailable("central's answer has the wrong shape", mend="check the URL of [central]") from None
    request_id = request_id if REQUEST_ID.fullmatch(request_id) else ""
    if check is not None:
        try:
            check(bodies, found, told.get("receipt"))
        except AuditUnavailable as error:
            error.request_id = request_id
            raise
    return [{**answer, "request_id": request_id} for answer in found]


def problem(told: str, status: int, content: bytes) -> AuditUnavailable:
    """Return the error for an answer of another status, with what an RFC 9457 body says of it, if it is one."""
    code = request_id = ""
    try:
        said = json.loads(content) if len(content) <= LARGEST else {}
        code, request_id = str(said["code"]), str(said["request_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    code = code if CODE.fullmatch(code) else ""
    error = AuditUnavailable(f"{told} with status {status}" + (f" ({code})" if code else ""), mend="see central's log")
    error.code, error.request_id = code, request_id if REQUEST_ID.fullmatch(request_id) else ""
    return error


def of_central(error: BaseException) -> dict[str, str]:
    """Return the fields of a line of our log by which central's line about the same request is found."""
    found = {"code": error.code, "request_id": error.request_id} if isinstance(error, AuditUnavailable) else {}
    return {name: value for name, value in found.items() if value}


def against(fields: Mapping[str, Any], answer: Answer) -> tuple[str, dict[str, Any]] | None:
    """Return what our log is to say of an event that central denied or refused, a name and fields; None where it did neither."""
    if answer.get("reason") == "event_id_reused" or not (answer.get("reason") or not answer.get("appended")):
        return None
    return "audit.denied" if answer.get("appended") else "audit.refused", {
        "kind": fields["kind"],
        "audit_id": audit_id(str(fields["reservation"])),
        "reason": answer.get("reason"),
        "status": answer["status"],
        "request_id": answer.get("request_id", ""),
    }


def not_taken(told: str, last: PrismVaultError | None) -> AuditUnavailable:
    """Return the error for an event whose answer did not come in time, where ``last`` is what the last attempt ended with."""
    why = f"{told} ({last.message})" if last else told
    if last is not None and last.reason in (MISSING, WRONG, RateLimited.reason):
        error = AuditUnavailable(why, mend=last.mend, reason=last.reason)
    else:
        error = AuditUnavailable(why, mend="retry when central is up")
    if isinstance(last, AuditUnavailable):
        error.code, error.request_id = last.code, last.request_id
    return error


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


def nameless(reason: str, message: str) -> AuditUnavailable:
    """Return the error of an installation that does not have its host's name, in central's words."""
    mend = (
        "was this machine copied, or its state? then remove the file installation from [agent] state, and"
        if reason == SUPERSEDED
        else "if that one was replaced by this, wait until it is gone; else"
    )
    told = f"{mend} give each host its own name and credential (prism-vault central token create NAME --role agent --host HOST)"
    return AuditUnavailable(f"nothing is released: {message}"[:1000], mend=told, reason=reason)


def _refused(answer: Answer) -> AuditUnavailable:
    if answer.get("reason") in NAMELESS:
        error = nameless(str(answer["reason"]), str(answer.get("message")))
        error.request_id = answer.get("request_id", "")
        return error
    why = answer.get("message") or answer.get("reason") or answer["status"]
    error = AuditUnavailable(
        f"central refused the audit record: {why}",
        mend="see central's log",
        reason=str(answer.get("reason") or "refused"),
    )
    error.request_id = answer.get("request_id", "")
    return error
