"""A changed configuration is applied while the agent serves; a bad one is refused, told, and changes nothing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.agent.changes import changes
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.relay import lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from watchfiles import Change

    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.files.renders import FileRenders
    from prism_vault_agent.agent.in_force import InForce
    from prism_vault_agent.agent.runs.rotation import Rotation
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.agent.status import Status
    from prism_vault_agent.config.apart import Configuration
    from prism_vault_agent.config.settings import Settings

log = structlog.get_logger()

FIXED = ("agent", "vault", "central")
# A directory of scopes that appears as a whole, and how Kubernetes switches a mounted configuration.
DIRECTORIES = ("scopes.d", "..data")


class Reload:
    """Applies new scopes at once, and takes back what they do not admit any more; says which other sections need a restart."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        in_force: InForce,
        runs: Runs,
        files: Files,
        renders: FileRenders,
        rotation: Rotation,
        status: Status,
        note: Callable[[str, str], None],
    ) -> None:
        """Read ``configuration`` and put it ``in_force``; ``note`` records it, with a stable word and a sentence."""
        self._configuration = configuration
        self._note = note
        self._in_force = in_force
        self._runs = runs
        self._files = files
        self._renders = renders
        self._rotation = rotation
        self._status = status
        self._one_at_a_time = asyncio.Lock()

    async def watch(self, directories: Iterable[str]) -> None:
        """Reload when a file in these directories changes (editors and mounts replace files), or has changed since the start."""
        started = False
        async for _ in changes(directories, _matters):
            if started or not self._configuration.unchanged(self._in_force().scopes):
                await self.now()
            started = True

    async def now(self) -> None:
        """Read the configuration and apply what changed."""
        async with self._one_at_a_time:
            await self._apply()

    async def _apply(self) -> None:
        log.debug("config.reading")
        try:
            settings = await asyncio.to_thread(self._configuration.load, self._in_force().scopes)
        except PrismVaultError as error:
            self._status.config_error = error.message
            log.error("config.refused", message=error.message, mend=error.mend)
            self._note("config_refused", error.message)
            return
        self._status.loaded_at = time.time()
        tell_relays(settings)
        before = self._in_force()
        if settings == before:
            self._status.config_error = ""
            log.debug("config.unchanged")
            return
        restart = [section for section in FIXED if getattr(settings, section) != getattr(before, section)]
        self._status.config_error = f"restart the agent to apply: {', '.join(restart)}" if restart else ""
        removed = before.scopes.keys() - settings.scopes.keys()
        self._in_force.settings = type(settings)(before.agent, before.vault, before.central, settings.scopes, settings.files)
        changes = {
            "added": sorted(settings.scopes.keys() - before.scopes.keys()),
            "removed": sorted(removed),
            "changed": sorted(
                name for name in settings.scopes.keys() & before.scopes.keys() if settings.scopes[name] != before.scopes[name]
            ),
        }
        log.info("config.applied", needs_restart=restart, **changes)
        self._note("config_applied", "; ".join(f"{how} {', '.join(names)}" for how, names in changes.items() if names))
        self._files.apply(settings.scopes)
        self._renders.look()
        self._rotation.look()
        self._runs.judge(settings.scopes, self._runs)


def tell_relays(settings: Settings) -> None:
    """Log a line for each server that cannot be reached, since we have no network and no relay leads there."""
    for line in lacking(settings.vault.relay, (settings.vault.address, *settings.central.urls)):
        log.error("relay.missing", message=line)


def _matters(_change: Change, path: str) -> bool:
    """Tell whether a changed path can be of the configuration; logs and state may lie beside it."""
    return path.endswith((".toml", ".j2", *DIRECTORIES))
