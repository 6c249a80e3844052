"""One run: a process that was given the values of a render, and what it has started since."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

from prism_vault_agent.audit.target import Released, as_read

if TYPE_CHECKING:
    from prism_vault_agent.agent.trees.guards import Guard
    from prism_vault_agent.agent.trees.tree import Tree
    from prism_vault_agent.model import Render


@dataclass(slots=True, eq=False)
class Run:
    """A process that holds the values of a render. ``pidfd`` stays valid when the client becomes the command; -1 once that ended.

    The run lasts as long as anything of its ``tree`` does.
    """

    render: Render
    pidfd: int
    started_at: float
    tree: Tree
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = "exited"
    signal: int | None = None
    # Who is above it where it is supervised, and a descriptor of the first of these that lives.
    guards: list[Guard] = field(default_factory=list)
    guard: int = -1
    how: str = "ended by itself"

    # How long it may take to end after SIGKILL, in seconds, and what is told when it has not.
    patience: float | None = None
    stays: str = "not all of its processes have ended"

    @property
    def pid(self) -> int:
        """The process."""
        return self.render.reservation.grant.caller.pid

    async def stop(self, helper: str) -> str:  # noqa: ARG002 - for those that something else than a signal ends
        """Have whoever keeps it without a process let it go; return why that is not so."""
        return self.stays

    def held(self) -> bool:
        """Tell whether it still holds the values; the end of the process itself is told by its descriptor."""
        return self.pidfd >= 0 or self.tree.left()

    def describe(self) -> dict[str, Any]:
        """Return what ``status`` shows."""
        grant = self.render.reservation.grant
        return {
            "id": self.render.reservation.audit_id,
            "scopes": [scope.name for scope in grant.scopes],
            "purpose": grant.purpose,
            "run_ref": grant.request.run_ref,
            "job_id": grant.request.job_id,
            "pid": self.pid,
            "uid": grant.caller.uid,
            "kind": grant.kind,
            "unit": "",
            "command": command(self.pid),
            "started_at": int(self.started_at),
            "age": int(time.time() - self.started_at),
        }


def command(pid: int) -> str:
    """Return the name of the program that a process is now, or nothing where it has just ended."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""


def released(host: str, render: Render) -> Released:
    """Return a render as a target of central's sees it."""
    grant = render.reservation.grant
    return Released(
        host=host,
        project=grant.scopes[0].project,
        scopes=frozenset(scope.name for scope in grant.scopes),
        run_ref=grant.request.run_ref,
        references=as_read(
            (each for binding in grant.bindings for each in binding.references),
            {lease.path: lease.version for lease in render.leases},
        ),
    )
