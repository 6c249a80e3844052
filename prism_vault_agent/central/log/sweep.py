"""Ends reservations whose outcome never came: one ``abandoned`` row each, after the configured time."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.log.append import abandon
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.log.writer import Busy
from prism_vault_agent.central.storage.schema import ENDINGS, event

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from prism_vault_agent.central.log.writer import Writer

LONGEST_PAUSE: Final = 5.0
MOST_AT_ONCE: Final = 200

_ended = event.alias("ended")
_OPEN: Final = (
    select(event.c.n, event.c.reservation_id, event.c.received_at)
    .where(
        event.c.kind == "reserved",
        ~select(_ended.c.n).where(_ended.c.reservation_id == event.c.reservation_id, _ended.c.kind.in_(sorted(ENDINGS))).exists(),
    )
    .order_by(event.c.n)
)


class Sweeper:
    """Looks for open reservations, on the rows themselves, so any number of replicas may sweep: the first one ends each."""

    def __init__(self, engine: Engine, writer: Writer, lifetime: float, ended: Callable[[float], None]) -> None:
        """Read through ``engine``; end what is older than ``lifetime`` seconds through ``writer``; tell ``ended`` how many."""
        self._engine = engine
        self._writer = writer
        self._lifetime = lifetime
        self._ended = ended
        self._ended_up_to = 0

    async def run(self) -> None:
        """Sweep until cancelled. A database that cannot be used now is tried again at the next turn."""
        log = structlog.get_logger("sweep")
        while True:
            try:
                count = await self.sweep()
                if count:
                    self._ended(count)
                    log.warning("reservations_abandoned", count=count)
            except (StorageError, SQLAlchemyError, Busy) as error:
                log.error("sweep_failed", error=type(error).__name__)
            await asyncio.sleep(min(self._lifetime / 4, LONGEST_PAUSE))

    async def sweep(self) -> int:
        """End every reservation that is too old and return how many there were."""
        expired = await asyncio.to_thread(self._expired)
        count = 0
        for start in range(0, len(expired), MOST_AT_ONCE):
            count += await self._writer.do(partial(abandon, reservations=expired[start : start + MOST_AT_ONCE]))
        return count

    def _expired(self) -> list[str]:
        """Return the reservations that are open for too long, and remember below which index none is open."""
        with self._engine.connect() as connection:
            last = connection.execute(select(event.c.n).order_by(event.c.n.desc()).limit(1)).scalar() or 0
            rows = connection.execute(_OPEN.where(event.c.n > self._ended_up_to)).all()
        # A row with a lower index may still be in another writer's transaction; those are younger than a lifetime.
        cutoff = time.time_ns() // 1_000_000 - int(self._lifetime * 1000)
        self._ended_up_to = min((row.n - 1 for row in rows), default=last)
        return [row.reservation_id.hex() for row in rows if row.received_at <= cutoff]
