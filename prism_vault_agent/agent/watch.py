"""Looks after what was given out: a run whose secret was deleted or destroyed at the provider is ended within one poll."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.errors import PrismVaultError, TokenExpired

if TYPE_CHECKING:
    from prism_vault_agent.agent.release import Mounts
    from prism_vault_agent.agent.runs import Run, Runs
    from prism_vault_agent.agent.session import Session
    from prism_vault_agent.agent.workers import Workers

log = structlog.get_logger()

JOB_SECONDS: Final = 10.0


class Watch:
    """Polls the versions that runs hold, by metadata only. ``interval`` is in seconds; one poll a path, however many runs."""

    def __init__(self, workers: Workers, session: Session, runs: Runs, mounts: Mounts, interval: float) -> None:
        """Look after ``runs``."""
        self._workers = workers
        self._session = session
        self._runs = runs
        self._mounts = mounts
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
            if not held:
                continue
            try:
                await self._look(held)
            except PrismVaultError as error:
                log.warning("watch.failed", reason=error.reason, message=error.message)

    def _held(self) -> dict[tuple[str, int], list[Run]]:
        """Return the versions that are out there, and with whom."""
        held: dict[tuple[str, int], list[Run]] = {}
        for run in self._runs:
            for lease in run.render.leases:
                if lease.version is not None:
                    held.setdefault((lease.path, lease.version), []).append(run)
        return held

    async def _look(self, held: dict[tuple[str, int], list[Run]]) -> None:
        deadline = time.monotonic() + JOB_SECONDS
        token = await self._session.token(deadline)
        job = {"do": "withdrawn", "token": token, "versions": list(held), "mounts": self._mounts.known}
        try:
            answer = await self._workers.job(job, deadline)
        except TokenExpired:
            self._session.expired(token)
            return
        for path, version, how in answer["withdrawn"]:
            runs = held[path, version]
            log.warning("secret.withdrawn", path=path, version=version, how=how, runs=len(runs))
            self._runs.end(runs, f"secret_{how}")
