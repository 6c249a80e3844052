"""Does what is due when it is, each by itself: the loop of who is told of files and of what processes do at a rotation."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What changes or ends together is looked at together: a rotation may change every file of a host.
SETTLE_SECONDS: Final = 0.03
LEAST_SECONDS: Final = 0.01


async def begin_when_due(wake: asyncio.Event, begin: Callable[[], float], under_way: Mapping[Any, asyncio.Task[None]]) -> None:
    """``begin`` what is due, which returns in how many seconds to look again, or when woken; until cancelled.

    What is ``under_way`` then is cancelled too: the next agent does it again.
    """
    try:
        while True:
            wake.clear()
            wait = max(LEAST_SECONDS, begin())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await wake.wait()
                    await asyncio.sleep(SETTLE_SECONDS)
    finally:
        tasks = list(under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
