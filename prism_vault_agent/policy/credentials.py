"""Which credential is a unit's? One pure function: the scope that gives it, or why there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prism_vault_agent.policy.decide import Denial
from prism_vault_agent.policy.names import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.scope import Binding, Credential, Scope, ScopeName


def credential_of(scopes: Mapping[ScopeName, Scope], unit: str, name: str) -> tuple[Scope, Credential] | Denial:
    """Return the credential ``name`` of ``unit`` and its scope, or a denial.

    The scope has only what the credential is made of, and only the callers that name the unit: nobody gets a credential by
    being root, as systemd is. A valid configuration has at most one.
    """
    for scope in scopes.values():
        callers = tuple(rule for rule in scope.callers if rule.unit == unit)
        for credential in scope.credentials if callers else ():
            if credential.name == name:
                return replace(scope, callers=callers, bindings=_made_of(scope, credential)), credential
    return Denial(
        "unknown_credential",
        f"no scope has a credential {shown(name)} for unit {shown(unit)}",
        "add it to [[scopes.NAME.credentials]] of a scope that has the unit among its callers",
    )


def credentials(scope: Scope) -> list[dict[str, str]]:
    """Return which credentials a scope gives to which units: unit, name, and the variable or the format that it is ``of``."""
    units = dict.fromkeys(rule.unit for rule in scope.callers if rule.unit is not None)
    return [
        {"unit": unit, "name": each.name, "of": each.variable or f"all, as {each.file.format if each.file else ''}"}
        for unit in units
        for each in scope.credentials
    ]


def _made_of(scope: Scope, credential: Credential) -> tuple[Binding, ...]:
    """Return the bindings that are to be read: the variable's, or those of every key where it must be among these."""
    if not credential.variable:
        return scope.bindings
    named = tuple(binding for binding in scope.bindings if binding.name == credential.variable)
    return named or tuple(binding for binding in scope.bindings if binding.name is None)
