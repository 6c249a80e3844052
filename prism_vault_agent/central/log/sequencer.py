"""Puts the log into its final order: leaves, the tree over them, and signed checkpoints of it.

Events are acknowledged before they have a leaf; every fraction of a second whoever holds the lock gives each new event the next
index. A row of a transaction that ends late gets its index late; nothing waits for it. That needs no order of arrival:
an event is appended only after the one before it in its host's chain is there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.log.writer import Busy
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.tree import fetch
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.proof.merkle import Frontier
from prism_vault_agent.proof.note import Checkpoint, seal
from prism_vault_agent.proof.tiles import frontier_of

if TYPE_CHECKING:
    from prism_vault_agent.central.log.transaction import Transaction
    from prism_vault_agent.central.log.writer import Writer
    from prism_vault_agent.proof.keys import Signer

SEQUENCER: Final = 0x7072_6973_6D01  # a lock's number: whoever has it gives out indexes
MOST_AT_ONCE: Final = 5_000
SLOWEST: Final = 5.0
PAUSE: Final = 1.0  # after a failure
LAST_SECONDS: Final = 5.0  # for the last turn, whatever the database or the signer does


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree as it was last seen. Every event up to ``floor`` has its leaf; ``(next_floor, mark)`` waits to become it."""

    frontier: Frontier
    floor: int = 0
    next_floor: int = 0
    mark: int | None = None
    published: int = 0
    more: bool = False


def grow(transaction: Transaction, tree: Tree) -> Tree:
    """Give new events their leaves, and return the tree with them; the same tree where another replica is at it."""
    cursor, writing = transaction.cursor, transaction.writing
    if not writing.alone(cursor, SEQUENCER):
        return tree
    tree = _present(transaction, tree)
    if tree.mark is None:
        next_floor, mark = writing.highest(cursor)
        tree = replace(tree, next_floor=next_floor, mark=mark)
    assert tree.mark is not None
    settled = writing.settled(cursor, tree.mark)
    rows = writing.unsequenced(cursor, tree.floor, MOST_AT_ONCE)
    if settled and len(rows) < MOST_AT_ONCE:
        tree = replace(tree, floor=tree.next_floor, mark=None)
    frontier = tree.frontier.copy()
    for index, (n, leaf) in enumerate(rows, frontier.size):
        transaction.also(schema.leaf, (index, n, leaf))
    for node in frontier.extend([leaf for _, leaf in rows]):
        transaction.also(schema.node, node)
    return replace(tree, frontier=frontier, more=len(rows) == MOST_AT_ONCE)


def _present(transaction: Transaction, tree: Tree) -> Tree:
    """Return the tree that the rows hold, which is another one where another replica has grown it."""
    cursor = transaction.cursor
    cursor.execute("SELECT coalesce(max(idx) + 1, 0) FROM leaf")
    size = int(cursor.fetchall()[0][0])
    if size == tree.frontier.size:
        return tree
    cursor.execute("SELECT size, floor FROM checkpoint ORDER BY size DESC LIMIT 1")
    published, floor = (cursor.fetchall() or [(0, 0)])[0]
    return Tree(frontier_of(size, partial(fetch, cursor)), floor=floor, published=published)


def publish(transaction: Transaction, checkpoint: Checkpoint, note: str, floor: int) -> None:
    """Insert a signed checkpoint, unless another replica has published one as large."""
    cursor, size = transaction.cursor, checkpoint.size
    transaction.writing.in_turn(cursor, SEQUENCER)
    cursor.execute(f"SELECT 1 FROM checkpoint WHERE size = {size:d}")  # noqa: S608 - a number
    if not cursor.fetchall():
        transaction.also(schema.checkpoint, (size, checkpoint.root, note, floor, transaction.now))


class Sequencer:
    """Grows the tree through ``writer`` every ``interval`` seconds while there is news, and signs what it has become."""

    def __init__(self, writer: Writer, signer: Signer, interval: float, *, shared: bool) -> None:
        """``shared`` tells that others write to the same database, whose news this process does not hear of."""
        self._writer = writer
        self._signer = signer
        self._interval = interval
        self._shared = shared
        self._tree = Tree(Frontier())
        self._news = asyncio.Event()
        self._growth = asyncio.Event()

    async def grown(self, size: int) -> None:
        """Return once there are more than ``size`` leaves, here or by another replica."""
        while self._tree.frontier.size <= size:
            await self._growth.wait()

    def news(self) -> None:
        """Take note that events were appended."""
        self._news.set()

    async def run(self) -> None:
        """Sequence until cancelled. A database or a signer that cannot be used now is tried again at the next turn."""
        log = structlog.get_logger("sequencer")
        while True:
            try:
                await self.turn()
            except (StorageError, Busy, PrismVaultError) as error:
                log.error("sequencing_failed", error=type(error).__name__, cause=str(error))
                self.news()
                await asyncio.sleep(PAUSE)
            await asyncio.sleep(self._interval)
            await self._wait()

    async def finish(self) -> None:
        """Sequence once more, when nothing is appended any longer: the log is left with a checkpoint of all of it."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                # A turn that was cancelled may have left its work with the writer; in one transaction a tree must not grow twice.
                await self._writer.do(lambda _transaction: None)
                await self.turn()
        except (StorageError, Busy, PrismVaultError, TimeoutError) as error:
            structlog.get_logger("sequencer").error("sequencing_failed", error=type(error).__name__, cause=str(error))

    async def turn(self) -> None:
        """Give every event that is there its leaf, and publish a checkpoint of a tree that has none."""
        more = True
        while more:
            self._news.clear()
            before = self._tree.frontier.size
            self._tree = await self._writer.do(partial(grow, tree=self._tree))
            if self._tree.frontier.size > before:
                self._growth.set()
                self._growth = asyncio.Event()
            more = self._tree.more
        if self._tree.mark is not None:
            self.news()  # the floor is still to be raised
        size = self._tree.frontier.size
        if size > self._tree.published:
            key = self._signer.verifying_key
            checkpoint = Checkpoint(key.name, size, self._tree.frontier.root())
            (signature,) = await asyncio.to_thread(self._signer.sign_many, [checkpoint.text().encode()])
            note = seal(checkpoint.text(), key, signature)
            await self._writer.do(partial(publish, checkpoint=checkpoint, note=note, floor=self._tree.floor))
            self._tree = replace(self._tree, published=size)

    async def _wait(self) -> None:
        """Wait for news; where others write too, not for long."""
        try:
            async with asyncio.timeout(0.0 if self._shared else SLOWEST):
                await self._news.wait()
        except TimeoutError:
            return
