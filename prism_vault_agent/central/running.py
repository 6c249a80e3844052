"""What runs behind the routes while central serves: the writers' threads and the loops; begun together, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence

    from fastapi import FastAPI

    from prism_vault_agent.central.access.issuer import TokenIssuer
    from prism_vault_agent.central.log.writer import Writer

    Loop = Callable[[], Coroutine[None, None, None]]


class Running:
    """The writers, the loops that use them, and what is closed behind them."""

    def __init__(
        self,
        writers: Collection[Writer],
        loops: Sequence[Loop],
        *,
        first: Loop,
        last: Loop,
        closing: Sequence[Callable[[], None]],
        issuer: TokenIssuer | None,
    ) -> None:
        """Run ``first`` to its end, then ``loops``, and ``last`` after them; ``closing`` may block. Nothing is begun yet."""
        self._writers = writers
        self._first = first
        self._loops = loops
        self._last = last
        self._closing = closing
        self._issuer = issuer

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Run everything; at the end, what waits is written before a writer ends."""
        for writer in self._writers:
            writer.start()
        await self._first()
        tasks = [asyncio.create_task(loop()) for loop in self._loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._last()
            for writer in self._writers:
                await asyncio.to_thread(writer.stop)
            for close in self._closing:
                await asyncio.to_thread(close)
            if self._issuer is not None:
                await self._issuer.close()
            structlog.get_logger("central").info("stopped")
