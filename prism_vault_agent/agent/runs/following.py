"""What commands start, looked at while they run: where only parents tell what is theirs, it must be known before they end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from prism_vault_agent.agent.trees.sweep import Sweep

if TYPE_CHECKING:
    from prism_vault_agent.agent.runs.run import Run

# Between two looks: at first, since much is started at the start; and in the end. Of one processor no more than this part.
FIRST_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 1.0
PART: Final = 0.02
_AT_A_TIME: Final = 64


class Following:
    """Looks at the trees of the runs that it was given, until these are over."""

    def __init__(self) -> None:
        """Look at none yet."""
        self._runs: set[Run] = set()
        self._looking: asyncio.Task[None] | None = None
        self._pause = FIRST_SECONDS

    def add(self, run: Run) -> None:
        """Look at a run from now on, where that can find anything that would not be found later."""
        if not isinstance(run.tree, Sweep) or not run.tree.is_told_by_parents or run.guards:
            return
        self._runs.add(run)
        self._pause = FIRST_SECONDS
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())

    def drop(self, run: Run) -> None:
        """Look at it no more: it is over."""
        self._runs.discard(run)

    async def _look_on(self) -> None:
        took = 0.0
        while self._runs:
            await asyncio.sleep(max(self._pause, took / PART))
            self._pause = min(2 * self._pause, LONGEST_SECONDS)
            took = 0.0
            for place, run in enumerate(list(self._runs), start=1):
                begun = time.monotonic()
                if isinstance(run.tree, Sweep):
                    run.tree.follow()
                took += time.monotonic() - begun
                if place % _AT_A_TIME == 0:
                    await asyncio.sleep(0)
