"""A reservation as a journal of the agent's keeps it, and how the next agent reads it: enough to look after what was released."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prism_vault_agent.agent.plain import bound, flat
from prism_vault_agent.model import Caller, Grant, Request, Reservation, ReservationId
from prism_vault_agent.scope import Binding, Purpose, Reaction, Scope, ScopeName, SecretReference
from prism_vault_agent.wanted.kinds import wanted_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prism_vault_agent.audit.event import Fields


def plain(reservation: Reservation) -> Fields:
    """Return what is kept of a reservation; :func:`recall` reads it."""
    grant = reservation.grant
    return {
        "reservation": reservation.id,
        "audit_id": reservation.audit_id,
        "scopes": [[scope.name, scope.project, scope.environment, scope.grace] for scope in grant.scopes],
        "kind": grant.kind,
        "purpose": grant.purpose,
        "run_ref": grant.request.run_ref,
        "job_id": grant.request.job_id,
        "mode": grant.request.mode,
        "supervised": grant.request.supervised,
        "on_rotate": str(grant.request.on_rotate) if grant.request.on_rotate else None,
        "references": [[binding.name, str(binding.reference)] for binding in grant.request.references],
        "caller": {**flat(grant.caller), "groups": sorted(grant.caller.groups)},
        "bindings": bound(grant.bindings),
    }


def recall(kept: Mapping[str, Any]) -> Reservation:
    """Return the reservation that was kept. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
    purpose = Purpose(kept["purpose"])
    scopes = tuple(
        Scope(ScopeName(name), project, environment, (purpose,), (), grace=float(grace))
        for name, project, environment, grace in kept["scopes"]
    )
    bindings, references = _bindings(kept["bindings"]), _bindings(kept.get("references", ()))
    caller = Caller(**{**kept["caller"], "groups": frozenset(kept["caller"]["groups"])})
    names = tuple(scope.name for scope in scopes)
    request = Request(
        names, purpose, kept["run_ref"], kept["job_id"], references, kept["mode"],
        supervised=bool(kept.get("supervised")),
        on_rotate=Reaction.parse(kept["on_rotate"]) if kept.get("on_rotate") else None,
    )  # fmt: skip
    grant = Grant(scopes, caller, kept["kind"], purpose, request, bindings, pristine=False)
    return Reservation(ReservationId(kept["reservation"]), kept["audit_id"], grant)


def _bindings(kept: Iterable[Sequence[Any]]) -> tuple[Binding, ...]:
    """Return what is bound; an agent of an earlier version kept nothing of what is wanted there."""
    return tuple(
        Binding(name, SecretReference.parse(reference), wanted_of(wanted[0] if wanted else None))
        for name, reference, *wanted in kept
    )
