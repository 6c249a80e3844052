"""Runs that an earlier agent left: what still holds its values is looked after again, and the end of all else is recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.agent.front.peer import open_again
from prism_vault_agent.agent.runs.runs import Run
from prism_vault_agent.agent.runs.unit import Holding, UnitRun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prism_vault_agent.agent.runs.records import Recalled
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.model import Reservation
    from prism_vault_agent.scope import Scope, ScopeName

log = structlog.get_logger()


def adopt(
    runs: Runs,
    scopes: Mapping[ScopeName, Scope],
    cleared: Callable[[Reservation, str, int | None], None],
) -> dict[str, int]:
    """Look after what still runs, and begin to end what ``scopes`` have no longer; return the mounts that it was read from.

    What has ended meanwhile is told to ``cleared``.
    """
    mounts: dict[str, int] = {}
    for recalled in list(runs.records.load()):
        reservation = recalled.render.reservation
        run = _still(recalled, runs)
        if run is None:
            cleared(reservation, "exited", None)
            runs.records.drop(reservation.id)
            continue
        mounts.update(recalled.mounts)
        log.info("run.adopted", audit_id=reservation.audit_id, pid=run.pid)
        if any(scope.name not in scopes for scope in reservation.grant.scopes):
            runs.end([run], "scope_removed")
    return mounts


def _still(recalled: Recalled, runs: Runs) -> Run | None:
    """Return the run that it still is; None where its process, or its unit's start, has ended."""
    if not recalled.here:
        return None
    if recalled.unit is not None:
        holding = Holding(*recalled.unit)
        if not holding.held():
            return None
        return runs.begin(UnitRun(recalled.render, -1, recalled.at, asyncio.Event(), holding=holding), None)
    pidfd = open_again(recalled.render.reservation.grant.caller)
    return None if pidfd is None else runs.watch(recalled.render, pidfd, at=recalled.at)
