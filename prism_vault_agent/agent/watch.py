"""Looks after what was given out: what was deleted or destroyed at the provider is taken back within one poll.

Runs are ended, files are cleared; files of which there is a newer version are rendered anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.rendered import Rendered
from prism_vault_agent.agent.runs import Run
from prism_vault_agent.errors import PrismVaultError, TokenExpired

if TYPE_CHECKING:
    from prism_vault_agent.agent.files import Files
    from prism_vault_agent.agent.release import Reading
    from prism_vault_agent.agent.renders import FileRenders
    from prism_vault_agent.agent.runs import Runs

log = structlog.get_logger()

JOB_SECONDS: Final = 10.0


class Watch:
    """Polls the versions that are out there, by metadata only. ``interval`` is in seconds; one poll a path, however many runs."""

    def __init__(self, reading: Reading, runs: Runs, files: Files, renders: FileRenders, interval: float) -> None:
        """Look after ``runs`` and ``files``; what is stale is for ``renders``."""
        self._files = files
        self._renders = renders
        self._reading = reading
        self._runs = runs
        self._interval = interval
        self._wanted = asyncio.Event()

    def now(self) -> None:
        """Poll at once, and then as before."""
        self._wanted.set()

    async def run(self) -> None:
        """Poll until cancelled; what cannot be asked now is asked again at the next turn."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval * random.uniform(0.8, 1.0)):  # noqa: S311 - jitter is no secret
                    await self._wanted.wait()
            self._wanted.clear()
            held = self._held()
            try:
                if held:
                    await self._look(held)
            except PrismVaultError as error:
                log.warning("watch.failed", reason=error.reason, message=error.message)
            self._renders.look()

    def _held(self) -> dict[tuple[str, int], list[Run | Rendered]]:
        """Return the versions that are out there, and with whom."""
        held: dict[tuple[str, int], list[Run | Rendered]] = {}
        for each in (*self._runs, *self._files):
            for lease in each.render.leases:
                if lease.version is not None:
                    held.setdefault((lease.path, lease.version), []).append(each)
        return held

    async def _look(self, held: dict[tuple[str, int], list[Run | Rendered]]) -> None:
        deadline = time.monotonic() + JOB_SECONDS
        token = await self._reading.session.token(deadline)
        job = {"do": "withdrawn", "token": token, "versions": list(held), "mounts": self._reading.mounts.known}
        try:
            answer = await self._reading.workers.job(job, deadline)
        except TokenExpired:
            self._reading.session.expired(token)
            return
        for path, version, how in answer["withdrawn"]:
            holders = held[path, version]
            runs = [each for each in holders if isinstance(each, Run)]
            files = [each for each in holders if isinstance(each, Rendered)]
            log.warning("secret.withdrawn", path=path, version=version, how=how, runs=len(runs), files=len(files))
            for rendered in files:
                self._files.clear(rendered, f"secret_{how}")
            self._runs.end(runs, f"secret_{how}")
        for rendered in self._files:
            if any(answer["newest"].get(path, 0) > version for path, version in _unpinned(rendered)):
                rendered.stale = True


def _unpinned(rendered: Rendered) -> list[tuple[str, int]]:
    """Return the versions that a generation has of references that do not name theirs."""
    bindings = rendered.render.reservation.grant.bindings
    paths = {binding.reference.path for binding in bindings if binding.reference.version is None}
    return [(lease.path, lease.version) for lease in rendered.render.leases if lease.path in paths and lease.version]
