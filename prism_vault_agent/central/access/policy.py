"""May this host reserve these scopes? One pure function over the rules, and the same with its reasons. Default deny."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

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

    def plain(self) -> dict[str, str | list[str]]:
        """Return the rule as JSON knows it, with its lists sorted."""
        lists = {name: sorted(getattr(self, name)) for name in ("scopes", "hosts", "kinds", "purposes")}
        return {"project": self.project, "environment": self.environment, **lists}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Rule:
        """Return the rule that :meth:`plain` described. Raises ``KeyError`` or ``TypeError`` where it is none."""
        lists = {name: frozenset(plain[name]) for name in ("scopes", "hosts", "kinds", "purposes")}
        return cls(plain["project"], plain["environment"], **lists)


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


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule under its name. ``version`` is that of the change that set it, 0 for one of the configuration."""

    name: str
    version: int
    rule: Rule


@dataclass(frozen=True)
class Policies:
    """Every policy that holds at one ``version``."""

    version: int
    all: tuple[Policy, ...]

    def rules(self, project: str) -> Sequence[Rule]:
        """Return the rules that can speak of a project, so that a decision costs no more for those of other projects."""
        return [policy.rule for policy in self.about(project)]

    def about(self, project: str) -> Sequence[Policy]:
        """Return the policies that can speak of a project."""
        return self._of.get(project, self._of[ANY])

    @cached_property
    def _of(self) -> dict[str, list[Policy]]:
        projects = {ANY, *(policy.rule.project for policy in self.all)}
        return {of: [policy for policy in self.all if policy.rule.project in (ANY, of)] for of in projects}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What :func:`decide` says, which policies allow all of it, and at which test each of the others fails first."""

    denial: Denial | None
    allowed_by: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]


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


def explain(policies: Policies, projects: frozenset[str], intent: Intent) -> Explanation:
    """Say why :func:`decide` decides as it does, by the policies that can speak of the intent's project."""
    about = policies.about(intent.project)
    denial = decide([policy.rule for policy in about], projects, intent)
    first = {policy.name: next((what for what, test in _TESTS if not test(policy.rule, intent)), None) for policy in about}
    allowing = tuple(name for name, what in first.items() if what is None)
    failed = tuple((name, what) for name, what in first.items() if what is not None)
    return Explanation(denial, allowing if denial is None else (), failed)


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
