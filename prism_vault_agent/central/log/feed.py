"""The signals as this process knows them: the newest ones in memory, and who waits for the next.

The rows are the truth. A reader keeps one number, the id of the last signal that it has seen, and is given what is behind it;
nothing is queued for anybody, so that a slow reader costs no memory and misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.audit.target import ANY
from prism_vault_agent.central.log.signals import CHANNEL
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.storage import schema

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Engine, Row

    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.log.follower import Follower

# Seconds after which the rows are looked at without having been told: another process may have written them.
LOOK_SECONDS: Final = 1.0
KEPT: Final = 1_000
PAGE: Final = 100
# How many are woken before others get their turn: an append must not wait until ten thousand hosts are told.
WOKEN_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal; ``event`` is what a stream of server-sent events says of it."""

    id: int
    kind: str
    body: dict[str, Any]
    n: int
    made_at: int
    event: bytes

    def concerns(self, identity: Identity) -> bool:
        """Tell whether a caller may see it: it is of one of the caller's projects, and of no other host than the caller's.

        One that names no project is for callers of all projects, as rows of no project are.
        """
        projects = self.body.get("projects") or ()
        if not (identity.sees_all or ANY in projects or identity.projects.intersection(projects)):
            return False
        host: str = (self.body.get("target") or {}).get("host", "")
        return not host or identity.host in ("", host)


class Feed:
    """Looks for new signals when told, and at least every second; wakes who follows."""

    def __init__(self, engine: Engine, before: Callable[[], Awaitable[None]]) -> None:
        """Read through ``engine``; ``before`` takes over what is told of policies and tokens before anybody is woken for it."""
        self._engine = engine
        self._before = before
        self._recent: deque[Signal] = deque(maxlen=KEPT)
        self._last = 0
        self._ready = asyncio.Event()
        self._news = asyncio.Event()
        self._followers: set[Follower] = set()
        self.ended = False

    @property
    def connected(self) -> int:
        """How many follow."""
        return len(self._followers)

    def hosts(self, signal: Signal) -> list[str]:
        """Return the hosts that follow now and that a signal concerns."""
        return sorted({each.identity.host for each in self._followers if each.identity.host and signal.concerns(each.identity)})

    def told(self, channel: str) -> None:
        """Take note that something was told on a channel."""
        if channel == CHANNEL:
            self._news.set()

    def join(self, follower: Follower) -> None:
        """Wake ``follower`` from now on."""
        self._followers.add(follower)

    def leave(self, follower: Follower) -> None:
        """Wake ``follower`` no more."""
        self._followers.discard(follower)

    def end(self) -> None:
        """Let everyone who follows end, and nobody follow from now on."""
        self.ended = True
        for follower in self._followers:
            follower.leave()

    def behind(self, position: int) -> list[Signal] | None:
        """Return the next signals behind ``position``, as far as they are in memory; None where :meth:`read` has to look."""
        if position >= self._last:
            return []
        first = self._recent[0].id if self._recent else self._last + 1
        if position + 1 < first:
            return None
        return [self._recent[index] for index in range(position + 1 - first, min(len(self._recent), position + 1 - first + PAGE))]

    async def read(self, position: int) -> list[Signal]:
        """Return the next signals behind ``position`` from the rows. Raises :class:`StorageError`."""
        return await asyncio.to_thread(_read, self._engine, position)

    async def last(self) -> int:
        """Return the id of the newest signal that this process knows."""
        await self._ready.wait()
        return self._last

    async def newest(self) -> int:
        """Return the id of the newest signal that there is. Raises :class:`StorageError`."""
        return await asyncio.to_thread(_newest, self._engine)

    async def start_of(self, host: str, epoch: bytes) -> int | None:
        """Return the id before the first signal that a start of a host's agent must see. Raises :class:`StorageError`.

        None where nothing of that start is on the log, so that nothing of it can be out there.
        """
        return await asyncio.to_thread(_start_of, self._engine, host, epoch)

    async def run(self, news: Callable[[Signal], None]) -> None:
        """Look for signals until cancelled, and give each new one to ``news`` once everyone who follows is woken."""
        log = structlog.get_logger("signals")
        failed = False
        while True:
            self._news.clear()
            try:
                for signal in await self._look():
                    news(signal)
                failed = False
            except StorageError as error:
                if not failed:
                    log.error("signals_unread", cause=str(error))
                failed = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._news.wait()

    async def _look(self) -> list[Signal]:
        """Take in new signals and wake who follows; return the new ones."""
        if not self._ready.is_set():
            self._last = await self.newest()
            self._ready.set()
            return []
        found: list[Signal] = []
        while page := await self.read(self._last):
            found += page
            self._recent.extend(page)
            self._last = page[-1].id
        if any(signal.kind == "policy" for signal in found):
            await self._before()
        if found:
            for count, follower in enumerate(list(self._followers), 1):
                follower.wake()
                if count % WOKEN_AT_ONCE == 0:
                    await asyncio.sleep(0)
        return found


def as_signal(row: Row[Any]) -> Signal:
    """Return the signal that a row of the table holds."""
    body = json.loads(row.body)
    data = json.dumps({**body, "n": row.n, "made_at": row.made_at}, ensure_ascii=False)
    return Signal(row.id, row.kind, body, row.n, row.made_at, f"id: {row.id}\nevent: {row.kind}\ndata: {data}\n\n".encode())


def _read(engine: Engine, position: int) -> list[Signal]:
    page = select(schema.signal).where(schema.signal.c.id > position).order_by(schema.signal.c.id).limit(PAGE)
    try:
        with engine.connect() as connection:
            return [as_signal(row) for row in connection.execute(page)]
    except SQLAlchemyError as error:
        raise StorageError(type(error).__name__) from error


def _newest(engine: Engine) -> int:
    try:
        with engine.connect() as connection:
            return int(connection.execute(select(func.max(schema.signal.c.id))).scalar() or 0)
    except SQLAlchemyError as error:
        raise StorageError(type(error).__name__) from error


# A transaction lives ten seconds at most; so long before the first row may a signal have been begun that was told after it.
_LONGEST_TRANSACTION_MS: Final = 10_000


def _start_of(engine: Engine, host: str, epoch: bytes) -> int | None:
    event, signal = schema.event.c, schema.signal.c
    first = select(event.received_at).where(event.host_id == host, event.host_epoch == epoch).order_by(event.host_seq).limit(1)
    try:
        with engine.connect() as connection:
            began = connection.execute(first).scalar()
            if began is None:
                return None
            # Back from the newest one: as many rows as the reader will be given.
            before = select(signal.id).where(signal.made_at < began - _LONGEST_TRANSACTION_MS).order_by(signal.id.desc()).limit(1)
            return int(connection.execute(before).scalar() or 0)
    except SQLAlchemyError as error:
        raise StorageError(type(error).__name__) from error
