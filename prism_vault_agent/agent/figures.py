"""The figures of now for ``metrics.py``, looked up in what ``status`` tells root: sums, without a name."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def figures(told: Mapping[str, Any]) -> dict[str, float | dict[str, float]]:
    """Return the figures, by name, from the answer to ``GET /v1/status`` about everything."""
    vault, central, files = told["vault"], told["central"], told["files"]
    logged_in = vault["state"] == "logged_in"
    ends = vault["token_expires_in"]
    consumers = [each for one in files for each in one["consumers"]]
    return {
        "ready": told["ready"],
        "start_time_seconds": told["started_at"],
        "provider_reachable": vault["reachable"],
        "logged_in": logged_in,
        "token_ends_seconds": 0 if not logged_in else math.inf if ends is None else ends,
        "central_reachable": central["state"] == "reachable",
        "log_refused": told["log"].get("state") == "refused",
        "signals_connected": bool(told["signals"].get("connected")),
        "records_waiting": central["queued"],
        "records_lost": central["lost"],
        "workers_idle": told["workers"]["idle"],
        "runs": _count(("own", "adopted"), ("adopted" if run["adopted"] else "own" for run in told["runs"])),
        "runs_outdated": sum(bool(run.get("stale")) for run in told["runs"]),
        "runs_failed": sum(bool(run.get("pending") and run.get("rotation_error")) for run in told["runs"]),
        "runs_oldest_seconds": max((run["age"] for run in told["runs"]), default=0),
        "runs_left": sum(bool(run["left"]) for run in told["runs"]),
        "unconfirmed": sum(each.get("stale_for") is not None for each in (*told["runs"], *files)),
        "files": _count(("fresh", "stale", "failed"), map(_state, files)),
        "files_drifted": sum(bool(each["drift"]) for each in files),
        "files_adopted": sum(bool(each["adopted"]) for each in files),
        "next_check_seconds": max((each["next_check"] or 0 for each in (*told["runs"], *files)), default=0),
        "files_oldest_seconds": max((each["age"] for each in files), default=0),
        "consumers": _count(("told", "due", "failed"), map(_consumer, consumers)),
        "leases": {state: told["leases"].get(state, 0) for state in ("held", "revoking")},
        "config_refused": bool(told["config"]["error"]),
        "memory_bytes": told["process"]["memory_bytes"],
    }


def _count(states: Iterable[str], found: Iterable[str]) -> dict[str, float]:
    counted = Counter(found)
    return {state: counted[state] for state in states}


def _state(files: Mapping[str, Any]) -> str:
    return "fresh" if not files["stale"] else "failed" if files["error"] else "stale"


def _consumer(consumer: Mapping[str, Any]) -> str:
    return "told" if not consumer["due"] else "failed" if consumer["error"] else "due"
