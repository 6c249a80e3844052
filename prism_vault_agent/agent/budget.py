"""How many requests a second all looks at the provider take together: at versions, at keys and at leases."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Budget:
    """So many requests a second as ``rate`` says at that time; who wants to look waits for its turn."""

    def __init__(self, rate: Callable[[], int]) -> None:
        """Nothing is spent yet."""
        self._rate = rate
        self._free_at = 0.0  # CLOCK_MONOTONIC seconds

    @property
    def most(self) -> int:
        """How many to take at once at most: those of one second."""
        return max(1, self._rate())

    async def take(self, requests: int) -> None:
        """Wait until so many more requests may be made, and count them."""
        turn = max(time.monotonic(), self._free_at)
        self._free_at = turn + requests / self.most
        await asyncio.sleep(max(0.0, turn - time.monotonic()))

    def unused(self, requests: int) -> None:
        """Count so many fewer than were taken, or more where that is negative."""
        self._free_at -= requests / self.most
