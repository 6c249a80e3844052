"""A directory in which root drops orders as files, for programs that speak no HTTP: ``NAME.rotate`` and ``NAME.revoke``.

Each line of a file names a scope or a secret. What was done is removed; what is not understood is renamed to ``NAME.refused``.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

import aiofiles
import aiofiles.os
import structlog

from prism_vault_agent.agent.changes import changes
from prism_vault_agent.audit.target import ANY, Target
from prism_vault_agent.config.way import check
from prism_vault_agent.errors import CannotCreate, ConfigError, PrismVaultError

if TYPE_CHECKING:
    from watchfiles import Change

    from prism_vault_agent.agent.orders import Orders

log = structlog.get_logger()

MOST_BYTES: Final = 65_536
KINDS: Final = (".rotate", ".revoke")


class Drops:
    """Does what is dropped in ``directory``, with ``orders``, as the agent's own user."""

    def __init__(self, directory: str, orders: Orders) -> None:
        """Watch ``directory``, which nobody but root and the agent's user may write."""
        self._directory = directory
        self._orders = orders

    async def run(self) -> None:
        """Do what is there already, and then what comes, until cancelled. Raises ``CannotCreate`` or ``ConfigError`` at once."""
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            check(f"{self._directory}/", set())
        except OSError as error:
            raise CannotCreate(f"cannot use {self._directory}: {error.strerror}", mend="set [agent] drops elsewhere") from None
        async for _ in changes([self._directory], _matters):
            for name in sorted(await aiofiles.os.listdir(self._directory)):
                if name.endswith(KINDS):
                    await self._do(os.path.join(self._directory, name))

    async def _do(self, path: str) -> None:
        """Do one order, and let its file be gone; in whichever order that fails, the order is done at least once."""
        try:
            for target in await _targets(path):
                if path.endswith(".rotate"):
                    self._orders.rotate(os.geteuid(), target)
                else:
                    await self._orders.revoke(os.geteuid(), target)
            await aiofiles.os.unlink(path)
            log.info("drops.done", name=os.path.basename(path))
        except (OSError, ValueError, PrismVaultError) as error:
            told = error.message if isinstance(error, PrismVaultError) else type(error).__name__
            log.error("drops.refused", name=os.path.basename(path), message=told)
            try:
                await aiofiles.os.rename(path, f"{path}.refused")
            except OSError as left:
                log.error("drops.left", name=os.path.basename(path), errno=left.errno)


async def _targets(path: str) -> list[Target]:
    """Return what each line of a file names. Raises ``ConfigError`` or ``OSError`` for a file that is not to be believed."""
    async with aiofiles.open(path, encoding="utf-8", opener=_as_it_is) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_size > MOST_BYTES:
            raise ConfigError("it is no small file of root's or ours", mend="write it as root")
        lines = [line.strip() for line in (await file.read(MOST_BYTES)).splitlines()]
    kinds = {line: "reference" if line.startswith("vault://") else "scope" for line in lines if line}
    return [Target.parse({kind: line}, [ANY]) for line, kind in kinds.items()]


def _as_it_is(path: str, flags: int) -> int:
    """Open a file to read it: never by a link, and without waiting for who writes a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _matters(_change: Change, path: str) -> bool:
    return path.endswith(KINDS)
