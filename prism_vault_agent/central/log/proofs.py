"""Reading the log's proofs: its newest checkpoint, that it only grew since an older one, and that a row is in it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.storage.schema import checkpoint, event, leaf
from prism_vault_agent.central.storage.tree import fetch
from prism_vault_agent.errors import AuditUnavailable
from prism_vault_agent.proof import tiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

MOST_KEPT: Final = 512
_NEWEST: Final = select(checkpoint.c.size, checkpoint.c.note, checkpoint.c.made_at).order_by(checkpoint.c.size.desc()).limit(1)

Found = TypeVar("Found")


class Signed(NamedTuple):
    """A checkpoint: how many leaves it is about, its note, and when it was made (milliseconds since 1970)."""

    size: int
    note: str
    made_at: int


class Included(NamedTuple):
    """A row in the tree of a checkpoint: the position and the hash of its leaf, and the proof."""

    position: int
    leaf: bytes
    proof: list[bytes]


def origin_of(engine: Engine) -> str | None:
    """Return the origin that the log's checkpoints have so far. Raises ``AuditUnavailable`` where the database cannot be read."""
    try:
        with engine.connect() as connection:
            signed = _newest(connection)
    except SQLAlchemyError as error:
        raise AuditUnavailable(f"the database cannot be read ({type(error).__name__})", mend="check its state") from None
    return None if signed is None else signed.note.partition("\n")[0]


class NoSuchEvent(Exception):
    """There is no event with this number."""


class NotSequenced(Exception):
    """The event has no leaf yet, or no checkpoint is about it: soon there will be one."""


class Proofs:
    """The proofs of one log, read in threads. Every method raises ``StorageError`` where the database cannot be read.

    They raise ``IntegrityError`` where stored hashes are missing.
    """

    def __init__(self, engine: Engine, fresh: float) -> None:
        """Read through ``engine``; a checkpoint that was looked for within ``fresh`` seconds is not looked for again."""
        self._engine = engine
        self._error: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._fresh = fresh
        self._newest: Signed | None = None
        self._looked = -fresh
        self._looking = asyncio.Lock()
        self._grown: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()

    async def newest(self, *, least: int = 0) -> Signed | None:
        """Return the newest checkpoint, or None where there is none yet.

        It is at most ``fresh`` seconds old news, and where it is about fewer than ``least`` leaves it is no old news at all.
        """
        asked = time.monotonic()
        async with self._looking:  # who waited finds what the one before has found
            known = self._newest.size if self._newest else 0
            if self._looked < asked and (asked - self._looked >= self._fresh or known < least):
                began = time.monotonic()
                self._newest = await self._read(_newest)
                self._looked = began
            return self._newest

    async def growth(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the tree of ``new`` leaves begins with that of ``old``; nothing where that needs no proof."""
        if not 0 < old < new:
            return []
        if (old, new) not in self._grown:
            self._grown[old, new] = await self._read(partial(_growth, old=old, new=new))
        self._grown.move_to_end((old, new))
        while len(self._grown) > MOST_KEPT:
            self._grown.popitem(last=False)
        return self._grown[old, new]

    async def inclusion(self, n: int) -> tuple[Included, Signed]:
        """Return the proof that row ``n`` is in the tree of the newest checkpoint. Raises NoSuchEvent or NotSequenced."""
        index, hashed = await self._read(partial(_leaf, n=n))
        signed = await self.newest(least=index + 1)
        if signed is None or signed.size <= index:
            raise NotSequenced
        return Included(index, hashed, await self._read(partial(_inclusion, index=index, size=signed.size))), signed

    async def inclusion_in(self, size: int, n: int) -> Included:
        """Return the proof that row ``n`` is in the tree of the first ``size`` leaves. Raises as :meth:`inclusion`.

        What a host holds is an older checkpoint, which it has convinced itself of: that is the tree it asks about.
        """
        index, hashed = await self._read(partial(_leaf, n=n))
        newest = await self.newest(least=size)
        if index >= size or newest is None or newest.size < size:
            raise NotSequenced
        return Included(index, hashed, await self._read(partial(_inclusion, index=index, size=size)))

    async def _read(self, question: Callable[[Connection], Found]) -> Found:
        return await asyncio.to_thread(self._ask, question)

    def _ask(self, question: Callable[[Connection], Found]) -> Found:
        try:
            with self._engine.connect() as connection:
                return question(connection)
        except (SQLAlchemyError, self._error) as error:
            raise StorageError(type(error).__name__) from error


def _newest(connection: Connection) -> Signed | None:
    row = connection.execute(_NEWEST).first()
    return None if row is None else Signed(*row)


def _leaf(connection: Connection, n: int) -> tuple[int, bytes]:
    row = connection.execute(select(leaf.c.idx, leaf.c.hash).where(leaf.c.n == n)).first()
    if row is not None:
        return row.idx, bytes(row.hash)
    there = connection.execute(select(event.c.n).where(event.c.n == n)).first()
    raise NotSequenced if there else NoSuchEvent


def _inclusion(connection: Connection, index: int, size: int) -> list[bytes]:
    return tiles.inclusion_proof(index, size, partial(fetch, connection.connection.cursor()))


def _growth(connection: Connection, old: int, new: int) -> list[bytes]:
    return tiles.consistency_proof(old, new, partial(fetch, connection.connection.cursor()))
