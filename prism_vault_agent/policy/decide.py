"""May this caller have these scopes for this purpose? One pure function, default deny; it answers a ``Grant`` or a ``Denial``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prism_vault_agent.model import Caller, Grant, Request
from prism_vault_agent.policy.names import dangerous, fault, shown
from prism_vault_agent.scope import Binding, CallerKind, CallerRule, Purpose, Scope, ScopeName

LONGEST_TEXT: Final = 200


@dataclass(frozen=True, slots=True)
class Denial:
    """No, and why: the rule that failed (a stable word), what a person reads, and how to satisfy it."""

    rule: str
    message: str
    mend: str
    scope: str = ""
    project: str | None = None
    environment: str | None = None


def decide(scopes: Mapping[ScopeName, Scope], caller: Caller, request: Request) -> Grant | Denial:
    """Return the grant for ``request`` by ``caller`` under ``scopes``, or the first rule that forbids it."""
    try:
        asked = _asked(scopes, request)
        _check_text(request)
        kinds = [_kind(scope, caller, request) for scope in asked]
        purpose = _purpose(asked, request)
        bindings = _bindings(asked, request)
    except _No as no:
        return no.denial
    kind: CallerKind = "agent" if "agent" in kinds else kinds[0]
    wishes = [scope.pristine for scope in asked if scope.pristine is not None]
    pristine = any(wishes) if wishes else kind == "agent"
    return Grant(tuple(asked), caller, kind, purpose, request, bindings, pristine)


def admits(scope: Scope, caller: Caller) -> bool:
    """Tell whether the scope names this caller at all, whatever else it would have to say."""
    return any(_matches(rule, caller) for rule in scope.callers)


def _asked(scopes: Mapping[ScopeName, Scope], request: Request) -> list[Scope]:
    """Return the scopes that are asked for: known, each once, of one project and environment."""
    if not request.scopes:
        raise _No("no_scope", "no scope was asked for", "name one with --scope")
    unknown = [name for name in request.scopes if name not in scopes]
    if unknown:
        raise _No(
            "unknown_scope",
            f"there is no scope {shown(unknown[0])} on this host",
            "check its spelling, or add it to the agent's scopes.d",
            shown(unknown[0]),
        )
    asked = [scopes[name] for name in dict.fromkeys(request.scopes)]
    if len({(scope.project, scope.environment) for scope in asked}) > 1:
        raise _about(
            asked[-1],
            "mixed_projects",
            "scopes of different projects or environments cannot be combined",
            "run the command once for each, or bind what it needs in one scope",
        )
    return asked


def _check_text(request: Request) -> None:
    """Refuse a purpose, run reference or job id that is too long or not printable ASCII."""
    for what, text in (("purpose", request.purpose), ("run-ref", request.run_ref), ("job-id", request.job_id)):
        if text is not None and not (0 < len(text) <= LONGEST_TEXT and text.isascii() and text.isprintable()):
            raise _No(
                "malformed_text",
                f"the value of --{what} is empty, too long or not printable ASCII",
                f"use 1 to {LONGEST_TEXT} printable ASCII characters",
            )


def _kind(scope: Scope, caller: Caller, request: Request) -> CallerKind:
    """Return the kind under which the scope admits the caller, with what that kind requires."""
    matching = [rule for rule in scope.callers if _matches(rule, caller)]
    if not matching:
        raise _about(
            scope,
            "caller",
            f"uid {caller.uid} running {shown(caller.executable)} matches none of its callers",
            "add a matching entry to the scope's callers, or run as a user that it names",
        )
    missing = [(rule, lack) for rule in matching if (lack := _lack(rule.kind, request)) is not None]
    if len(missing) == len(matching):
        kind, lack = missing[0][0].kind, missing[0][1]
        raise _about(
            scope,
            f"{lack}_required",
            f"callers of kind {kind} must say --{lack.replace('_', '-')}",
            f"add --{lack.replace('_', '-')}",
        )
    return next(rule.kind for rule in matching if _lack(rule.kind, request) is None)


def _lack(kind: CallerKind, request: Request) -> str | None:
    """Return what a caller of this kind must say and did not."""
    if kind == "agent" and request.run_ref is None:
        return "run_ref"
    if kind == "worker" and request.job_id is None:
        return "job_id"
    return None


def _matches(rule: CallerRule, caller: Caller) -> bool:
    """Tell whether every selector that the rule sets matches the caller."""
    return (
        (rule.uid is None or rule.uid == caller.uid)
        and (rule.gid is None or rule.gid == caller.gid or rule.gid in caller.groups)
        and (rule.executable is None or rule.executable == caller.executable)
        and (rule.unit is None or rule.unit == caller.unit)
        and (rule.container is None or (caller.container or "").startswith(rule.container))
    )


def _purpose(asked: Iterable[Scope], request: Request) -> Purpose:
    """Return the one purpose of this render: the one given, or the only one that the scopes have."""
    chosen: set[Purpose] = set()
    for scope in asked:
        listed = ", ".join(scope.purposes)
        if request.purpose is None and len(scope.purposes) != 1:
            raise _about(scope, "purpose_required", "it has several purposes", f"name one with --purpose: {listed}")
        purpose = request.purpose or scope.purposes[0]
        if purpose not in scope.purposes:
            raise _about(scope, "purpose_not_allowed", f"{shown(purpose)} is not one of its purposes", f"use one of: {listed}")
        chosen.add(purpose)
    if len(chosen) > 1:
        raise _No("purpose_required", "the scopes do not share their only purpose", "name one that both have with --purpose")
    return chosen.pop()


def _bindings(asked: list[Scope], request: Request) -> tuple[Binding, ...]:
    """Return all bindings: those of the scopes, then the caller's own references, each name once."""
    merged: dict[str, Binding] = {}
    whole: list[Binding] = []
    for scope in asked:
        for binding in scope.bindings:
            if binding.name is None:
                whole.append(binding)
            else:
                _add(merged, binding, scope)
    allowed_names = frozenset(name for scope in asked for name in scope.allow_names)
    for binding in request.references:
        name = binding.name or ""
        _check_name(name, allowed_names, asked[0])
        if not any(_covers(pattern, binding) for scope in asked for pattern in scope.allow_paths):
            raise _about(
                asked[0],
                "path_not_allowed",
                f"the reference in {shown(name)} is outside its allow_paths",
                "add the path to allow_paths, or unset the variable",
            )
        _add(merged, binding, asked[0])
    return (*merged.values(), *whole)


def _add(merged: dict[str, Binding], binding: Binding, scope: Scope) -> None:
    """Add a named binding, unless another one has its name."""
    assert binding.name is not None
    present = merged.setdefault(binding.name, binding)
    if present != binding:
        raise _about(scope, "duplicate_name", f"{binding.name} is bound to two different secrets", "keep one of them")


def _check_name(name: str, allowed: frozenset[str], scope: Scope) -> None:
    """Refuse a name of the caller's making that cannot be a variable, or that changes how programs run."""
    if (why := fault(name)) is not None:
        raise _about(scope, "bad_name", f"the variable name {shown(name)} {why}", "rename it")
    if dangerous(name) and name not in allowed:
        raise _about(scope, "dangerous_name", f"{name} changes how programs load or run", "list it in the scope's allow_names")


def _covers(pattern: str, binding: Binding) -> bool:
    """Tell whether an ``allow_paths`` entry covers a reference: an exact path, or everything below ``path/*``."""
    path = binding.reference.path
    return path == pattern or (pattern.endswith("/*") and path.startswith(pattern[:-1]))


class _No(Exception):
    def __init__(self, *fields: str) -> None:
        self.denial = Denial(*fields)


def _about(scope: Scope, rule: str, message: str, mend: str) -> _No:
    return _No(rule, message, mend, scope.name, scope.project, scope.environment)
