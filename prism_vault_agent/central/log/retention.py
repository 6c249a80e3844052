"""Drops bodies that are older than the configured time, a few at once, between the writes of others."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.log.drop import drop
from prism_vault_agent.central.log.purge import Selection, find
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.log.writer import Busy

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from prism_vault_agent.central.log.writer import Writer

LONGEST_PAUSE: Final = 3_600.0


class Retention:
    """Looks at the oldest rows every so often. Any number of replicas may: each body is dropped once."""

    def __init__(self, engine: Engine, writer: Writer, keep: float, anchored: Callable[[], int] | None = None) -> None:
        """Read through ``engine``; drop bodies of events that came more than ``keep`` seconds ago through ``writer``.

        Where checkpoints are anchored, ``anchored`` tells how many leaves one of them covers: the bodies of no others go.
        """
        self._engine = engine
        self._writer = writer
        self._keep = keep
        self._anchored = anchored

    async def run(self) -> None:
        """Drop until cancelled. A database that cannot be used now is tried again at the next turn."""
        log = structlog.get_logger("retention")
        while True:
            try:
                if count := await self.turn():
                    log.info("bodies_dropped", count=count)
            except (StorageError, SQLAlchemyError, Busy) as error:
                log.error("retention_failed", error=type(error).__name__)
            await asyncio.sleep(min(self._keep / 4, LONGEST_PAUSE))

    async def turn(self) -> int:
        """Drop every body that is too old and may go, and return how many there were."""
        old = Selection(before=time.time_ns() // 1_000_000 - int(self._keep * 1000))
        why = {**old.told(), "reason": "retention", "by": "central"}
        count = 0
        after: int | None = 0
        while after is not None:
            found = await asyncio.to_thread(find, self._engine, old, after)
            if found.doomed.numbers:
                work = partial(drop, doomed=found.doomed, why=why, anchored=self._anchored and self._anchored())
                count += (await self._writer.do(work)).count
            after = found.next
        return count
