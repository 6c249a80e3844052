"""Policies as rows: each change is a version of its own, on the audit log with who made it. Nothing is overwritten."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from prism_vault_agent.audit.event import canonical, new_id
from prism_vault_agent.central.access.permission import Refused
from prism_vault_agent.central.access.policy import Rule
from prism_vault_agent.central.access.recorded import recorded
from prism_vault_agent.central.log.signals import SIGNALS, signal
from prism_vault_agent.central.storage import schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from prism_vault_agent.audit.event import Fields
    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.log.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Change:
    """One version: what a name means from then on; without a ``rule`` it means nothing any more.

    ``project`` is that of the rule, or of the one that was removed. ``made_at`` is milliseconds since 1970, ``n`` the change's
    row on the audit log. ``believed`` tells that this row says the same.
    """

    version: int
    name: str
    rule: Rule | None
    project: str
    by: Mapping[str, str]
    n: int
    made_at: int
    believed: bool = True

    def plain(self) -> dict[str, Any]:
        """Return the change as JSON knows it."""
        told = {"name": self.name, "version": self.version, "made_at": self.made_at, "by": self.by, "n": self.n}
        return {**told, "removed": self.rule is None, **(self.rule.plain() if self.rule else {"project": self.project})}


class _Row(NamedTuple):
    version: int
    name: str
    body: bytes
    n: int
    made_at: int


def change(transaction: Transaction, who: Identity, name: str, rule: Rule | None, expected: int | None) -> Change | Refused:
    """Let ``name`` mean ``rule``, or nothing, and return that version; the present one where it is so already.

    ``expected`` is the version that the caller has seen: 0 for none, None where it does not matter. The projects of the rule
    and of the one that it replaces must be the caller's.
    """
    # The last version is read under the lock under which signals get their ids, so versions and signals have one order.
    transaction.writing.in_turn(transaction.cursor, SIGNALS)
    transaction.flush()
    before = _present(transaction, name)
    projects = [each.project for each in (before, rule) if each is not None]
    if not all(who.has(project) for project in projects):
        return Refused(403, "other_project", "the policy is, or would be, one of a project that is not the caller's")
    present = before.version if before is not None else 0
    if expected is not None and expected != present:
        return Refused(412, "changed", f"the policy is at version {present}, not {expected}")
    if rule is None and before is None:
        return Refused(404, "no_such_policy", "there is no policy of this name")
    if before is not None and before.believed and before.rule == rule:
        return before
    transaction.cursor.execute("SELECT coalesce(max(version), 0) FROM policy")
    version = int(transaction.cursor.fetchall()[0][0]) + 1
    row: Fields = {"project": projects[-1], "rule": rule.plain() if rule else None, "by": who.who}
    placed = transaction.insert_own({**_told(name, version, row), "reservation": new_id(), **_about(rule or before)})
    transaction.also(schema.policy, (version, name, canonical(row), placed.n, transaction.now))
    signal(transaction, "policy", {"version": version, "projects": sorted(set(projects))}, placed.n)
    return Change(version, name, rule, projects[-1], who.who, placed.n, transaction.now)


def read(connection: Connection, *, after: int = 0, until: int | None = None, name: str | None = None) -> Sequence[Change]:
    """Return the changes with versions above ``after`` and up to ``until``, in their order. Raises SQLAlchemy's errors."""
    question = (
        select(schema.policy, schema.event.c.body.label("event"))
        .outerjoin(schema.event, schema.event.c.n == schema.policy.c.n)
        .where(schema.policy.c.version > after)
        .order_by(schema.policy.c.version)
    )
    if until is not None:
        question = question.where(schema.policy.c.version <= until)
    if name is not None:
        question = question.where(schema.policy.c.name == name)
    return [_change(_Row._make(row[:5]), row[5]) for row in connection.execute(question)]


def _present(transaction: Transaction, name: str) -> Change | None:
    """Return the change that says what a name means now, or None where it means nothing."""
    rows = transaction.statements.policy_of.run(transaction.cursor, {"name": name})
    found = _change(_Row._make(rows[0][:5]), rows[0][5]) if rows else None
    return found if found is not None and found.rule is not None else None


def _change(row: _Row, event: bytes | None) -> Change:
    told: dict[str, Any] = json.loads(bytes(row.body))
    rule = Rule.of(told["rule"]) if told["rule"] else None
    believed = recorded(event, _told(row.name, row.version, told))
    return Change(row.version, row.name, rule, told["project"], told["by"], row.n, row.made_at, believed)


def _told(name: str, version: int, row: Mapping[str, Any]) -> Fields:
    """Return what the audit log says about a change besides who it is about."""
    done = "set" if row["rule"] else "removed"
    return {
        "kind": "policy",
        "reason": f"policy_{done}",
        "message": f"version {version}: {name} {done}",
        "policy": {"name": name, "version": version, "rule": row["rule"]},
        "by": row["by"],
    }


def _about(of: Rule | Change | None) -> Fields:
    """Return by which scopes and project the event is found."""
    rule = of.rule if isinstance(of, Change) else of
    assert rule is not None
    return {"project": rule.project, "environment": rule.environment, "scopes": sorted(rule.scopes)}
