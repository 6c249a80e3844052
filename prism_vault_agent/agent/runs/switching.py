"""How one run is made to take newer values: its unit is restarted, or its main process gets a signal."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from prism_vault_agent.agent import outdated
from prism_vault_agent.agent.front.cgroup import unit_of
from prism_vault_agent.agent.runs.signalling import signal_all
from prism_vault_agent.agent.runs.unit import UnitRun
from prism_vault_agent.errors import Unavailable
from prism_vault_agent.notify import unit
from prism_vault_agent.notify.occasion import Occasion
from prism_vault_agent.policy.reactions import step
from prism_vault_agent.scope import Notify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prism_vault_agent.agent.runs.run import Run
    from prism_vault_agent.policy.reactions import Holder
    from prism_vault_agent.scope import Scope, ScopeName


def holder_of(scopes: Mapping[ScopeName, Scope], run: Run) -> Holder:
    """Return what could start a run anew: a supervisor of ours, the unit that ``scopes`` name, or nothing."""
    if run.render.reservation.grant.request.supervised:
        return "supervised"
    return "unit" if unit_that_holds(scopes, run) else "process"


def unit_that_holds(scopes: Mapping[ScopeName, Scope], run: Run) -> str:
    """Return the unit that a run is of: that of its credentials, or its caller's where a scope's caller names it; or nothing."""
    if isinstance(run, UnitRun):
        return run.tree.unit
    grant = run.render.reservation.grant
    named = {unit for scope in grant.scopes if scope.name in scopes for unit in scopes[scope.name].restartable}
    return grant.caller.unit if grant.caller.unit in named else ""


def foreseen(scopes: Mapping[ScopeName, Scope], run: Run) -> str:
    """Return what would be done with a run at a rotation of anything that it has: a step, or the signal that it would get."""
    said = outdated.reaction(scopes, run.render, outdated.paths(run.render))
    doing = step(said, holder_of(scopes, run))
    return str(said) if doing == "signal" else doing


def names_of(run: Run) -> list[ScopeName]:
    """Return the scopes of which a run has values."""
    return [scope.name for scope in run.render.reservation.grant.scopes]


async def no_supervisor(_run: Run) -> None:
    """Raise that nothing starts a run anew. Raises ``Unavailable``."""
    raise Unavailable("its supervisor cannot be reached", mend="start it anew", reason="no_supervisor")


async def restart_unit(name: str, scope: ScopeName, helper: str) -> str:
    """Have systemd restart a unit that runs; return why there was nothing to restart, else nothing. Raises ``Unavailable``."""
    return await unit.tell(Notify("unit", (name,), "restart", ()), Occasion(scope, 0, "", helper))


async def signal_main(run: Run, name: str, helper: str) -> str:
    """Send a signal (its name without SIG) to a run's main process; return why there was none, else nothing.

    Raises ``PermissionError``, or what the helper says against it.
    """
    try:
        await signal_all(_main(run), signal.Signals[f"SIG{name}"], helper)
    except ProcessLookupError:
        return "its main process has ended"
    return ""


def _main(run: Run) -> Iterator[int]:
    """Yield a descriptor of the process that was given the values, good until the next is asked for."""
    if not isinstance(run, UnitRun):
        if run.pidfd >= 0:
            yield run.pidfd
        return
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(run.pid)
        try:
            with open(f"/proc/{run.pid}/cgroup", encoding="utf-8", errors="replace", newline="") as file:
                here = unit_of(file.read()) == run.tree.unit
            if here:
                yield descriptor
        finally:
            os.close(descriptor)
