"""Values to ask a large log for by each filter: those that many rows have, and those that one row has, which is the last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.log.question import FILTERS
from tests.support.bulk import BEGAN, EVERY_MS

if TYPE_CHECKING:
    from tests.central.own_log import OwnLog


def common(rows: int) -> dict[str, Any]:
    """Return a value for each filter but ``job_id`` that rows of a bulk log have, from its first row on."""
    return {
        "scope": "scope7",
        "host": "server7",
        "run_ref": "run-7",
        "purpose": "purpose1",
        "kind": "cleared",
        "outcome": "success",
        "reservation": f"{BEGAN + EVERY_MS:012x}7000b{1:015x}",
        "since": BEGAN + rows // 3 * EVERY_MS,
        "until": BEGAN + rows * 2 // 3 * EVERY_MS,
    }


def append_rare(log: OwnLog) -> dict[str, Any]:
    """Append the row, and return a value for each filter by which it alone is found."""
    reservation = new_id()
    named = {"scope": "rare-scope", "host": "rare-host", "run_ref": "rare-run", "job_id": "rare-job", "purpose": "rare-purpose"}
    about = {"project": "rare", "scopes": [named["scope"]], **{name: named[name] for name in ("run_ref", "job_id", "purpose")}}
    answer = log.send(log.make("denied", reservation, named["host"], **about), named["host"])
    assert answer.received_at is not None
    at = {"since": answer.received_at, "until": answer.received_at + 1}
    values = {**named, "kind": "denied", "outcome": "denied", "reservation": reservation, **at}
    assert set(values) == set(FILTERS), "a filter needs a value here by which one row is found"
    return values
