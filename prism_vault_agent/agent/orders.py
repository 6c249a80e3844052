"""Rotations and revocations that somebody on this host orders: of what is out there for them, at once, and without central."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from prism_vault_agent.errors import Denied, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.files.rendered import Rendered
    from prism_vault_agent.agent.files.renders import FileRenders
    from prism_vault_agent.agent.runs.rotation import Rotation
    from prism_vault_agent.agent.runs.run import Run
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.agent.status import Status
    from prism_vault_agent.audit.target import Target

log = structlog.get_logger()


@dataclass(slots=True)
class Orders:
    """Orders on ``host``, done with these parts; ``look`` has the provider asked for newer versions of some now."""

    host: str
    runs: Runs
    files: Files
    renders: FileRenders
    rotation: Rotation
    look: Callable[[Iterable[Run | Rendered]], None]
    status: Status

    def rotate(self, asker: int, target: Target) -> dict[str, Any]:
        """Look for newer versions of what user ``asker`` has of a target; its files are rendered anew in any case.

        Return how much of it there is. Raises ``Denied`` where all of it is others'.
        """
        runs, files = self._mine(asker, target)
        log.info("order.rotation", uid=asker, target=target.words(), runs=len(runs), files=len(files))
        for run in runs:
            self.rotation.ordered(run)
        self.renders.order(files)
        self.look([*runs, *files])
        return {"runs": len(runs), "files": len(files)}

    async def revoke(self, asker: int, target: Target) -> dict[str, Any]:
        """Take back what user ``asker`` has of a target: files are gone at once, processes within their grace.

        Return what was cleared, how each process ended, and what failed. What is being rendered is meant too where the asker
        may revoke everything. Raises ``Denied`` where all of it is others', ``UsageError`` for a run that there is none of.
        """
        runs, files = self._mine(asker, target)
        if self.status.may_revoke(asker, -1):
            self.files.under_way.bar(target)
            self.runs.revoked(self.host, target, None, now=False)
        if target.run_ref is not None and not runs and not files:
            raise UsageError("no run has that reference", mend="see prism-vault status", reason="no_such_run")
        log.warning("order.revocation", uid=asker, target=target.words(), runs=len(runs), files=len(files))
        told: dict[str, Any] = {"ended": [], **self.files.clear_each(files, "revoked")}
        for end in await self.runs.revoke_all(runs, "revoked", paths=target.paths):
            told["failed" if "why" in end else "ended"].append(end)
        return told

    def take_back(self, why: str) -> None:
        """Take back all that is out there, whoever has it: files at once, processes within their grace."""
        self.files.clear_each(self.files, why)
        self.runs.end(self.runs, why)

    def _mine(self, asker: int, target: Target) -> tuple[list[Run], list[Rendered]]:
        """Return what a target means and ``asker`` may revoke."""
        all_runs, all_files = self.runs.meant(self.host, target), self.files.meant(self.host, target)
        runs = [each for each in all_runs if self._owns(asker, each)]
        files = [each for each in all_files if self._owns(asker, each)]
        if (all_runs or all_files) and not (runs or files):
            raise Denied("it belongs to another user", mend="ask root or the agent's user", reason="not_your_run")
        return runs, files

    def _owns(self, asker: int, given: Run | Rendered) -> bool:
        return self.status.may_revoke(asker, given.render.reservation.grant.caller.uid)
