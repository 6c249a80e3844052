"""How much one host or one operator may ask of central: a token bucket each, and a turn in the writer's queue."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from prism_vault_agent.central.access.identity import Identity

# Events of one host that are with the writer at once, and that wait for it behind those.
MOST_AT_ONCE: Final = 256
MOST_WAITING: Final = 2_048


class RateLimited(Exception):
    """The caller asks for more than its share; ``seconds`` is after how long it may ask again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Rates:
    """One bucket for each host and each operator. It holds ``burst`` at most and is filled by ``rate`` a second."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with every bucket full; ``clock`` gives seconds."""
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}

    def take(self, identity: Identity, amount: int, again: int = 0) -> None:
        """Take ``amount`` out of the caller's bucket: a host's, whichever credential it has. Raises :class:`RateLimited`.

        ``again`` is what the whole request takes when it comes again, where that is more.
        """
        key = (identity.host, "") if identity.host else (identity.by, identity.name)
        now = self._clock()
        held, at = self._buckets.get(key, (self._burst, now))
        held = min(self._burst, held + (now - at) * self._rate)
        if held < amount:
            self._buckets[key] = (held, now)
            raise RateLimited((max(amount, again) - held) / self._rate)
        self._buckets[key] = (held - amount, now)


@dataclass(slots=True)
class _Line:
    under_way: int = 0
    waiting: deque[tuple[asyncio.Future[None], int]] = field(default_factory=deque)

    def free(self, amount: int) -> bool:
        return self.under_way == 0 or self.under_way + amount <= MOST_AT_ONCE


class Turns:
    """Lets each host have one batch's worth of events with the writer, so that nobody waits behind more than that of another."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._lines: dict[str, _Line] = {}

    @contextlib.asynccontextmanager
    async def turn(self, host: str, amount: int) -> AsyncIterator[None]:
        """Wait for the host's own events before these. Raises :class:`RateLimited` where too many of them wait."""
        line = self._lines.setdefault(host, _Line())
        if line.waiting or not line.free(amount):
            if sum(each for _, each in line.waiting) + amount > MOST_WAITING:
                raise RateLimited(1.0)
            await self._wait(host, line, amount)
        else:
            line.under_way += amount
        try:
            yield
        finally:
            self._leave(host, line, amount)

    async def _wait(self, host: str, line: _Line, amount: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting.append((future, amount))
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                with contextlib.suppress(ValueError):  # whoever left meanwhile has passed over it
                    line.waiting.remove((future, amount))
            else:
                self._leave(host, line, amount)
            raise

    def _leave(self, host: str, line: _Line, amount: int) -> None:
        line.under_way -= amount
        while line.waiting and line.free(line.waiting[0][1]):
            future, following = line.waiting.popleft()
            if future.cancelled():
                continue
            line.under_way += following
            future.set_result(None)
        if not line.under_way and not line.waiting:
            self._lines.pop(host, None)
