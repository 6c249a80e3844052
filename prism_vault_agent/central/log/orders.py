"""What an operator orders: a rotation or a revocation. One row on the audit log and one signal, in one transaction, once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from prism_vault_agent.audit.event import Fields, audit_id
from prism_vault_agent.audit.target import ANY, Target
from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.log.signals import signal
from prism_vault_agent.central.storage import schema

if TYPE_CHECKING:
    from prism_vault_agent.central.log.transaction import Transaction

LONGEST_SENTENCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Order:
    """Who orders what, and why. ``id`` (32 hex digits) is made by who orders: the same order sent again is the same order."""

    id: str
    kind: Literal["rotation", "revocation"]
    by: str
    target: Target
    emergency: bool
    reason: str

    def plain(self) -> Fields:
        """Return the order as the signal and the row on the log say it."""
        return {
            "target": self.target.plain(),
            "projects": sorted(self.target.projects),
            "by": self.by,
            "why": self.reason,
            **({"emergency": self.emergency} if self.kind == "revocation" else {}),
        }


@dataclass(frozen=True, slots=True)
class Placed:
    """An order that is durable: its signal's id, its row, and whether it was there before."""

    signal: int
    n: int
    audit_id: str
    again: bool


def place(transaction: Transaction, order: Order) -> Placed | None:
    """Record an order and tell all hosts of it; None where another order, or an event, has its id."""
    fields = _row(order)
    row = transaction.by_event_id(order.id)
    if row is not None:
        said = json.loads(row.body)
        if row.host_id != OWN_HOST or any(said.get(name) != value for name, value in fields.items()):
            return None
        return Placed(_signal_of(transaction, row.n), row.n, audit_id(order.id), again=True)
    n = transaction.insert_own(fields).n
    number = signal(transaction, order.kind, {**order.plain(), "audit_id": audit_id(order.id)}, n)
    return Placed(number, n, audit_id(order.id), again=False)


def _row(order: Order) -> dict[str, Any]:
    """Return the fields of the order's own row: found by scope, run, host and project like the rows that it is about."""
    target, projects = order.target, sorted(order.target.projects)
    urgent = "emergency " if order.emergency else ""
    why = f": {order.reason}" if order.reason else ""
    return {
        "kind": "admin",
        "event_id": order.id,
        "reservation": order.id,
        "project": projects[0] if len(projects) == 1 and projects != [ANY] else None,
        "environment": None,
        "scopes": [] if target.scope is None else [target.scope],
        "run_ref": target.run_ref,
        "about_host": target.host,
        "reason": order.kind,
        "message": f"{urgent}{order.kind} of {target.words()}, by {order.by}{why}"[:LONGEST_SENTENCE],
        "order": order.plain(),
    }


def _signal_of(transaction: Transaction, n: int) -> int:
    """Return the id of the signal whose row is ``n``, be it of this very transaction."""
    ours = [row[0] for row in transaction.gathered(schema.signal) if row[3] == n]
    if ours:
        return cast("int", ours[0])
    transaction.cursor.execute(f"SELECT id FROM signal WHERE n = {n:d}")  # noqa: S608 - a number
    return int(transaction.cursor.fetchall()[0][0])
