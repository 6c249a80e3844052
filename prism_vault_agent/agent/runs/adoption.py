"""Runs that an earlier agent left: what still holds its values is looked after again, and the end of all else is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.agent.front.peer import open_again
from prism_vault_agent.agent.runs.unit import UnitRun
from prism_vault_agent.agent.trees.tree import again, take_away_empty
from prism_vault_agent.agent.trees.unit import Holding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prism_vault_agent.agent.runs.records import Recalled
    from prism_vault_agent.agent.runs.run import Run
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.model import Reservation
    from prism_vault_agent.scope import Scope, ScopeName

log = structlog.get_logger()


def adopt(
    runs: Runs,
    scopes: Mapping[ScopeName, Scope],
    cleared: Callable[[Reservation, str, int | None], None],
    *,
    gone: str = "",
) -> dict[str, int]:
    """Look after what still runs, and begin to end what ``scopes`` have no longer; return the mounts that it was read from.

    What has ended meanwhile is told to ``cleared``, and control groups that nobody is in are taken away. ``gone`` is why all of
    it is over, for the caller to end: it is judged by no scope. What is looked after already stays as it is.
    """
    mounts: dict[str, int] = {}
    known = {run.render.reservation.id for run in runs}
    for recalled in list(runs.records.load()):
        reservation = recalled.render.reservation
        if reservation.id in known:
            continue
        run = _still(recalled, runs)
        if run is None:
            cleared(reservation, gone or "exited", None)
            continue
        mounts.update(recalled.mounts)
        log.info("run.adopted", audit_id=reservation.audit_id, pid=run.pid)
        if gone:
            run.why = gone
        else:
            runs.judge(scopes, [run])
    if count := len(list(runs)) - len(known):
        runs.note("adopted", f"{count} runs that an agent before gave values")
    if not gone:
        take_away_empty(runs.helper)
    return mounts


def _still(recalled: Recalled, runs: Runs) -> Run | None:
    """Return the run that it still is; None where its process and all of its tree, or its unit's start, have ended."""
    if not recalled.here:
        return None
    if recalled.unit is not None:
        unit = Holding(*recalled.unit)
        return runs.begin(UnitRun(recalled.render, -1, recalled.at, unit), None) if unit.left() else None
    caller = recalled.render.reservation.grant.caller
    tree, pidfd = again(recalled.tree, caller), open_again(caller.pid, caller.started)
    if pidfd is None and not tree.left():
        tree.remove()
        return None
    return runs.watch(recalled.render, -1 if pidfd is None else pidfd, tree=tree, guards=recalled.guards, at=recalled.at)
