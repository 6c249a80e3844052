"""A directory in which root drops orders as files, for programs that speak no HTTP: ``NAME.rotate`` and ``NAME.revoke``.

Each line of a file names a scope or a secret. What was done is removed; what is not understood is renamed to ``NAME.refused``.
"""

from __future__ import annotations

import asyncio
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
Content = tuple[int, int, int]


class Drops:
    """Does what is dropped in ``directory``, with ``orders``, as the agent's own user."""

    def __init__(self, directory: str, orders: Orders) -> None:
        """Watch ``directory``, which nobody but root and the agent's user may write."""
        self._directory = directory
        self._orders = orders
        self._under_way: set[tuple[str, Content]] = set()

    async def run(self) -> None:
        """Do what is there already, and then what comes, until cancelled. Raises ``CannotCreate`` or ``ConfigError`` at once."""
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            check(f"{self._directory}/", set())
        except OSError as error:
            raise CannotCreate(f"cannot use {self._directory}: {error.strerror}", mend="set [agent] drops elsewhere") from None
        async with asyncio.TaskGroup() as group:
            async for _ in changes([self._directory], _matters):
                for name in sorted(await aiofiles.os.listdir(self._directory)):
                    content = await _content(os.path.join(self._directory, name)) if name.endswith(KINDS) else None
                    if content is not None and (name, content) not in self._under_way:
                        self._under_way.add((name, content))
                        group.create_task(self._do(name, content))

    async def _do(self, name: str, content: Content) -> None:
        """Do one order, and let its file be gone; in whichever order that fails, the order is done at least once.

        A process may take its whole grace to end: neither another line nor another order waits for that.
        """
        path = os.path.join(self._directory, name)
        try:
            targets = await _targets(path)
            if name.endswith(".rotate"):
                for target in targets:
                    self._orders.rotate(os.geteuid(), target)
            else:
                await asyncio.gather(*(self._orders.revoke(os.geteuid(), target) for target in targets))
            if await _content(path) == content:  # else it is another order by now
                await aiofiles.os.unlink(path)
            log.info("drops.done", name=name)
        except (OSError, ValueError, PrismVaultError) as error:
            told = error.message if isinstance(error, PrismVaultError) else type(error).__name__
            log.error("drops.refused", name=name, message=told)
            try:
                await aiofiles.os.rename(path, f"{path}.refused")
            except OSError as left:
                log.error("drops.left", name=name, errno=left.errno)
        finally:
            self._under_way.discard((name, content))


async def _content(path: str) -> Content | None:
    """Return what tells one content of a file from another; None where it is gone."""
    try:
        found = await aiofiles.os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


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
