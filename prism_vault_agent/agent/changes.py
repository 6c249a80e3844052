"""Changes of files in directories, as the kernel tells them (inotify(7)); where it cannot, they are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from watchfiles import Change

log = structlog.get_logger()

SETTLE_MS: Final = 100
POLL_MS: Final = 2000  # where there is nothing to be told by


async def changes(directories: Iterable[str], matters: Callable[[Change, str], bool]) -> AsyncIterator[None]:
    """Yield soon after the start, and whenever something changed that ``matters``, until cancelled.

    Directories that are not there are passed over. The first time is for what changed before we watched, which tells nobody.
    """
    present = [directory for directory in directories if Path(directory).is_dir()]
    try:
        async for _ in _watched(present, matters):
            yield
    except (OSError, WatchfilesRustInternalError) as error:  # this user has no further instance or watch
        log.warning("changes.polled", directories=present, seconds=POLL_MS / 1000, message=f"the kernel cannot tell us: {error}")
        async for _ in _watched(present, matters, polling=True):
            yield


async def _watched(
    directories: list[str], matters: Callable[[Change, str], bool], *, polling: bool = False
) -> AsyncIterator[None]:
    seen = awatch(
        *directories, watch_filter=matters, step=SETTLE_MS, recursive=True, rust_timeout=1000, yield_on_timeout=True,
        force_polling=polling, poll_delay_ms=POLL_MS,
    )  # fmt: skip
    looked = False
    async for found in seen:
        if found or not looked:
            yield
        looked = True
