"""A changed configuration is applied while the agent serves; a bad one is refused, told, and changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from watchfiles import awatch

from prism_vault_agent.errors import PrismVaultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prism_vault_agent.agent.front import Front
    from prism_vault_agent.agent.runs import Runs
    from prism_vault_agent.agent.status import Status
    from prism_vault_agent.config.settings import Settings

log = structlog.get_logger()

SETTLE_MS = 100
FIXED = ("agent", "vault", "central")


class Reload:
    """Applies new scopes at once and ends the runs of scopes that are gone; says which other sections need a restart."""

    def __init__(self, load: Callable[[], Settings], front: Front, runs: Runs, status: Status) -> None:
        """Read with ``load`` and apply to ``front``."""
        self._load = load
        self._front = front
        self._runs = runs
        self._status = status

    async def watch(self, directories: Iterable[str]) -> None:
        """Reload when a file in these directories changes (directories, since editors and mounts replace files)."""
        present = [directory for directory in directories if Path(directory).is_dir()]
        async for _ in awatch(*present, step=SETTLE_MS, recursive=True, rust_timeout=1000):
            await self.now()

    async def now(self) -> None:
        """Read the configuration and apply what changed."""
        try:
            settings = await asyncio.to_thread(self._load)
        except PrismVaultError as error:
            self._status.config_error = error.message
            log.error("config.refused", message=error.message, mend=error.mend)
            return
        before = self._front.settings
        if settings == before:
            self._status.config_error = ""
            return
        restart = [section for section in FIXED if getattr(settings, section) != getattr(before, section)]
        self._status.config_error = f"restart the agent to apply: {', '.join(restart)}" if restart else ""
        removed = before.scopes.keys() - settings.scopes.keys()
        self._front.settings = type(settings)(before.agent, before.vault, before.central, settings.scopes, settings.files)
        log.info(
            "config.applied",
            added=sorted(settings.scopes.keys() - before.scopes.keys()),
            removed=sorted(removed),
            changed=sorted(
                name for name in settings.scopes.keys() & before.scopes.keys() if settings.scopes[name] != before.scopes[name]
            ),
            needs_restart=restart,
        )
        await self._runs.revoke_all(self._runs.of_scopes(removed), "scope_removed")
