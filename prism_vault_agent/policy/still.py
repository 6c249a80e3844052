"""May what was released stay where it is, under scopes as they are now? The same rules decide that decided before it was."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prism_vault_agent.policy.decide import Denial, decide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.model import Grant
    from prism_vault_agent.scope import Scope, ScopeName


def no_longer(scopes: Mapping[ScopeName, Scope], grant: Grant) -> str:
    """Return why a process may hold no longer what it was given: ``scope_removed``, ``no_longer_allowed``, or nothing.

    It may as long as it would be given all of it again: as the caller that it was, for the same purpose, from the same places.
    """
    if any(name not in scopes for name in grant.request.scopes):
        return "scope_removed"
    if grant.request.mode == "credential":  # systemd asks as root, whom other callers may name
        unit = grant.caller.unit
        scopes = {name: _of_unit(scopes[name], unit) for name in grant.request.scopes}
    decision = decide(scopes, grant.caller, grant.request)
    if isinstance(decision, Denial):
        return "no_longer_allowed"
    given = {(each.name, each.reference) for each in decision.bindings}
    return "" if all((each.name, each.reference) in given for each in grant.bindings) else "no_longer_allowed"


def _of_unit(scope: Scope, unit: str | None) -> Scope:
    """Return a scope for a unit that has a credential of it: its own callers only, and none where it has none any more."""
    return replace(scope, callers=tuple(rule for rule in scope.callers if rule.unit == unit) if scope.credentials else ())
