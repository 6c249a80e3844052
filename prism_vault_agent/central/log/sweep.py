"""Ends reservations whose outcome never came: one ``abandoned`` row each, after the configured time."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.log.append import abandon
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.log.writer import Busy
from prism_vault_agent.central.storage.schema import ENDED, event

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

    from prism_vault_agent.central.log.writer import Writer

LONGEST_PAUSE: Final = 5.0
MOST_AT_ONCE: Final = 200
MOST_LOOKED_AT: Final = 20_000
# A row with a lower index may still be in another writer's transaction for so long.
SETTLED_MS: Final = 15_000

_ended = event.alias("ended")
_OPEN: Final = (
    select(event.c.n, event.c.reservation_id, event.c.received_at)
    .where(
        event.c.kind == "reserved",
        ~select(_ended.c.n).where(_ended.c.reservation_id == event.c.reservation_id, ENDED).exists(),
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
        cutoff = time.time_ns() // 1_000_000 - int(self._lifetime * 1000)
        found: list[Any] = []
        with self._engine.connect() as connection:
            last, settled = (_newest(connection, at) for at in (cutoff, cutoff - SETTLED_MS))
            for low in range(self._ended_up_to, last, MOST_LOOKED_AT):
                high = min(low + MOST_LOOKED_AT, last)
                found += connection.execute(_OPEN.where(event.c.n > low, event.c.n <= high)).all()
                self._ended_up_to = min([high, settled, *(row.n - 1 for row in found)])
        return [row.reservation_id.hex() for row in found if row.received_at <= cutoff]


def _newest(connection: Connection, at: int) -> int:
    """Return the index of the last row that came at a time or before it."""
    rows = select(event.c.n).where(event.c.received_at <= at).order_by(event.c.received_at.desc()).limit(1)
    return connection.execute(rows).scalar() or 0
