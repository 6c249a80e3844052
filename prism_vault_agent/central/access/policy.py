"""May this host reserve these scopes? One pure function over the configured rules. Default deny."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """What may be reserved: every field must match; ``*`` matches anything."""

    project: str
    environment: str
    scopes: frozenset[str]
    hosts: frozenset[str]
    kinds: frozenset[str]
    purposes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Intent:
    """What a host asks to reserve. ``host`` comes from its credential; the rest is what its agent attested and decided."""

    host: str
    project: str
    environment: str
    scopes: tuple[str, ...]
    kind: str
    purpose: str
    run_ref: str | None
    job_id: str | None


@dataclass(frozen=True, slots=True)
class Denial:
    """No, and why: a stable word and a sentence."""

    reason: str
    message: str


# In the order in which they narrow the rules: the first that leaves none is the reason that is told.
_TESTS: Final[tuple[tuple[str, Callable[[Rule, Intent], bool]], ...]] = (
    ("project", lambda rule, intent: rule.project in (ANY, intent.project)),
    ("environment", lambda rule, intent: rule.environment in (ANY, intent.environment)),
    ("scope", lambda rule, intent: ANY in rule.scopes or rule.scopes.issuperset(intent.scopes)),
    ("host", lambda rule, intent: ANY in rule.hosts or intent.host in rule.hosts),
    ("kind", lambda rule, intent: ANY in rule.kinds or intent.kind in rule.kinds),
    ("purpose", lambda rule, intent: ANY in rule.purposes or intent.purpose in rule.purposes),
)


def decide(rules: Sequence[Rule], projects: frozenset[str], intent: Intent) -> Denial | None:
    """Return None where the host's ``projects`` and one rule allow all of ``intent``, else the first thing that forbids it."""
    if not intent.scopes:
        return Denial("no_scope", "the reservation names no scope")
    if ANY not in projects and intent.project not in projects:
        return Denial("project_not_allowed", f"host {intent.host} is not of project {intent.project}")
    if intent.kind == "agent" and not intent.run_ref:
        return Denial("run_ref_required", "a reservation of kind agent needs a run_ref")
    if intent.kind == "worker" and not intent.job_id:
        return Denial("job_id_required", "a reservation of kind worker needs a job_id")
    left = list(rules)
    for what, test in _TESTS:
        left = [rule for rule in left if test(rule, intent)]
        if not left:
            return Denial(f"{what}_not_allowed", f"no policy of central allows {_told(what, intent)}")
    return None


def _told(what: str, intent: Intent) -> str:
    """Return the part of the intent that no rule allows, with the parts before it."""
    parts = {
        "project": f"project {intent.project}",
        "environment": f"environment {intent.environment}",
        "scope": f"scope {','.join(intent.scopes)}",
        "host": f"host {intent.host}",
        "kind": f"callers of kind {intent.kind}",
        "purpose": f"purpose {intent.purpose}",
    }
    names = list(parts)
    return " in ".join(parts[name] for name in reversed(names[: names.index(what) + 1]))
