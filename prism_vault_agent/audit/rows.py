"""What each audit row says: from the nouns of a render to the fields of an event. Names, paths and versions; never a value."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from prism_vault_agent.audit.event import Fields, new_id
from prism_vault_agent.errors import Denied, PrismVaultError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.model import Caller, Grant, Request, Reservation, Resolution
    from prism_vault_agent.policy.decide import Denial
    from prism_vault_agent.scope import Binding

LONGEST_TEXT = 200
# As many as a denial's row names: a caller may ask for any number, and each denial must fit the log.
MOST_SCOPES = 64


def reserved(grant: Grant, reservation: str, installation: str = "") -> Fields:
    """Return the row that announces a render, of the agent's ``installation`` where it is known."""
    return {
        **_common("reserved", reservation),
        **({"installation": installation} if installation else {}),
        **_subject(grant),
        "caller": {**_caller(grant.caller), "kind": grant.kind},
        "mode": grant.request.mode,
        "bindings": [each for binding in grant.bindings for each in _binding(binding)],
    }


def success(resolution: Resolution) -> Fields:
    """Return the row that says what is about to be released: names, versions and leases."""
    return {
        **_common("success", resolution.reservation.id),
        **_subject(resolution.reservation.grant),
        "names": list(resolution.names),
        "leases": [
            {"path": lease.path, "version": lease.version, "lease_id": lease_hash(lease.lease_id), "seconds": lease.seconds}
            for lease in resolution.leases
        ],
    }


def lease_hash(lease_id: str) -> str:
    """Return what a row says of a lease: 32 hex digits of the SHA-256 of its id, which who has the id can compare.

    An id is not a value, but with it any token of the provider may prolong or look up the lease.
    """
    return hashlib.sha256(lease_id.encode()).hexdigest()[:32] if lease_id else ""


def failure(reservation: Reservation, error: BaseException) -> Fields:
    """Return the row that says nothing was released: ``denied`` for a denial, else ``failure``."""
    kind = "denied" if isinstance(error, Denied) else "failure"
    return {
        **_common(kind, reservation.id),
        **_subject(reservation.grant),
        "reason": error.reason if isinstance(error, PrismVaultError) else "cancelled",
        "message": _shown(error.message) if isinstance(error, PrismVaultError) else type(error).__name__,
    }


def denied(caller: Caller, request: Request, denial: Denial, reservation: str) -> Fields:
    """Return the row of a denial by the agent's own policy, which never became a reservation."""
    return {
        **_common("denied", reservation),
        "project": denial.project,
        "environment": denial.environment,
        "scopes": [_shown(name) or "''" for name in request.scopes[:MOST_SCOPES]],
        "purpose": _shown(request.purpose),
        "caller": _caller(caller),
        "run_ref": _shown(request.run_ref),
        "job_id": _shown(request.job_id),
        "mode": request.mode,
        "reason": denial.rule,
        "message": _shown(denial.message),
    }


def cleared(reservation: Reservation, reason: str, signal: int | None = None, stages: Mapping[str, int] | None = None) -> Fields:
    """Return the row that says a release is no longer out there; ``signal`` is the one of central's that had it ended.

    ``stages`` are those of the rotation that did, in milliseconds from when it was noticed.
    """
    told = {} if signal is None else {"signal": signal}
    return {**_cleared(reservation.id), **_subject(reservation.grant), "reason": reason, **told, **_stages(stages)}


def answer(signal: int, reason: str, counts: Mapping[str, int], message: str) -> Fields:
    """Return the row that says what became of a signal of central's on this host."""
    return {**admin(reason, message), "signal": signal, **counts}


def admin(reason: str, message: str, stages: Mapping[str, int] | None = None) -> Fields:
    """Return the row that says what became of the host's own configuration; it belongs to no project."""
    return {
        **_common("admin", new_id()),
        "project": None,
        "environment": None,
        "scopes": [],
        "reason": reason,
        "message": _shown(message),
        **_stages(stages),
    }


def _stages(stages: Mapping[str, int] | None) -> Fields:
    return {"stages": dict(stages)} if stages else {}


def not_delivered(failure: Fields) -> Fields:
    """Return the row that takes back a success, after the row of a failure that came too late to stand for itself."""
    same = {name: failure[name] for name in ("project", "environment", "scopes")}
    return {**_cleared(str(failure["reservation"])), **same, "reason": "not_delivered"}


def _cleared(reservation: str) -> Fields:
    """Return a row's beginning with an id that follows from the reservation's.

    So an end that is told again, by an agent that cannot know whether the one before it has told it, is on the log once.
    """
    digest = hashlib.sha256(f"cleared {reservation}".encode()).hexdigest()
    return {**_common("cleared", reservation), "event_id": f"{reservation:.12}7{digest[:3]}8{digest[3:18]}"}


def _common(kind: str, reservation: str) -> Fields:
    return {
        "kind": kind,
        "event_id": new_id(),
        "reservation": reservation,
        "at": time.time_ns() // 1_000_000,
        "boot_ms": time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
    }


def _subject(grant: Grant) -> Fields:
    """Return what every row of a render says it is about, so that each can be found by any of it."""
    return {
        "project": grant.scopes[0].project,
        "environment": grant.scopes[0].environment,
        "scopes": [scope.name for scope in grant.scopes],
        "purpose": grant.purpose,
        "run_ref": grant.request.run_ref,
        "job_id": grant.request.job_id,
    }


def _caller(caller: Caller) -> Fields:
    return {
        "pid": caller.pid,
        "uid": caller.uid,
        "gid": caller.gid,
        "executable": _shown(caller.executable),
        "unit": caller.unit,
        "container": caller.container,
        "guarantee": caller.guarantee,
    }


def _binding(binding: Binding) -> list[Fields]:
    """Return what is said of all that is read for a binding: of a ciphertext's place too, under the name of its value."""
    return [{"name": binding.name, "reference": str(each)} for each in binding.references]


def _shown(text: str | None) -> str | None:
    """Return text of a caller's making so that it cannot forge, hide or flood a row: escaped and cut."""
    if text is None:
        return None
    escaped = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return escaped if len(escaped) <= LONGEST_TEXT else escaped[:LONGEST_TEXT] + "..."
