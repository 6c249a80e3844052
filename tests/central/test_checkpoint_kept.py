"""The newest checkpoint is kept by each replica: however many ask, the database is asked once, and only where news is wanted."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from prism_vault_agent.central.log import proofs as module
from prism_vault_agent.central.log.proofs import Proofs
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import migrate, reading_engine, writing_engine
from prism_vault_agent.central.storage.tree import fetch
from prism_vault_agent.proof.merkle import Frontier, leaf_hash, verify_consistency

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPICursor

    from prism_vault_agent.proof.tiles import Range


class Log:
    """A log of leaves that the test grows, and what is asked of its database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        migrate(str(path))
        self.engine: Engine = reading_engine(str(path))
        self.asked: list[str] = []
        self.tree = Frontier()
        self.roots: dict[int, bytes] = {}
        event.listen(self.engine, "before_cursor_execute", lambda *told: self.asked.append(told[2]))

    def grow(self, leaves: int) -> None:
        """Add leaves and a checkpoint about them."""
        first = self.tree.size
        hashes = [leaf_hash(b"%d" % (first + number)) for number in range(leaves)]
        self.tree.extend(hashes)
        self.roots[self.tree.size] = self.tree.root()
        engine = writing_engine(str(self.path))
        rows = [{"idx": first + number, "n": first + number + 1, "hash": each} for number, each in enumerate(hashes)]
        checkpoint = {
            "size": self.tree.size,
            "root": self.tree.root(),
            "note": f"log\n{self.tree.size}\n",
            "floor": 0,
            "made_at": 0,
        }
        with engine.begin() as connection:
            connection.execute(schema.leaf.insert(), rows)
            connection.execute(schema.checkpoint.insert(), checkpoint)
        engine.dispose()

    def looks(self) -> int:
        """Tell how often the newest checkpoint was looked for."""
        return sum("FROM checkpoint" in statement for statement in self.asked)


@pytest.fixture
def log(tmp_path) -> Iterator[Log]:
    """Return a log with five leaves."""
    made = Log(tmp_path / "log" / "audit.db")
    made.grow(5)
    yield made
    made.engine.dispose()


def test_many_who_ask_at_once_are_one_question(log):
    """A hundred questions within the time that a checkpoint is fresh are one look at the database; nobody asking is none."""

    async def scenario() -> set[int]:
        proofs = Proofs(log.engine, 3600.0)
        await asyncio.sleep(0)
        assert log.looks() == 0
        found = await asyncio.gather(*(proofs.newest() for _ in range(50)))
        found += [await proofs.newest() for _ in range(50)]
        return {signed.size for signed in found if signed is not None}

    assert asyncio.run(scenario()) == {5}
    assert log.looks() == 1


def test_who_knows_of_more_is_not_told_old_news(log):
    """A question about more leaves than the kept checkpoint has is asked of the database, one look for all who wait for it."""

    async def scenario() -> tuple[list[int], int]:
        proofs = Proofs(log.engine, 3600.0)
        await proofs.newest()
        log.grow(2)
        old = await proofs.newest()
        new = await asyncio.gather(*(proofs.newest(least=7) for _ in range(30)))
        assert old is not None
        return sorted({old.size, *(signed.size for signed in new if signed is not None)}), log.looks()

    sizes, looks = asyncio.run(scenario())

    assert sizes == [5, 7]
    assert looks <= 3  # the first, one for those who wait, and one for whoever came after it had begun


def test_a_checkpoint_that_is_old_is_looked_for_again(log):
    """Once the time is over, the next question finds what was published meanwhile."""

    async def scenario() -> int:
        proofs = Proofs(log.engine, 0.001)
        await proofs.newest()
        log.grow(3)
        await asyncio.sleep(0.002)  # what is looked at is that time
        signed = await proofs.newest()
        return signed.size if signed else 0

    assert asyncio.run(scenario()) == 8


def test_a_proof_of_growth_is_computed_once(log, monkeypatch):
    """Hosts that hold the same checkpoint share the proof from it; what is kept of them is bounded."""
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    log.grow(3)
    computed: list[int] = []
    monkeypatch.setattr(module, "fetch", partial(_counted, computed))

    async def scenario() -> tuple[int, int]:
        proofs = Proofs(log.engine, 3600.0)
        proof = await proofs.growth(5, 8)
        assert all([await proofs.growth(5, 8) == proof for _ in range(20)])
        assert verify_consistency(5, log.roots[5], 8, log.roots[8], proof)
        assert await proofs.growth(8, 8) == await proofs.growth(0, 8) == []
        once = len(computed)
        for old in (3, 4, 5, 6):
            await proofs.growth(old, 8)
        return once, len(proofs._grown)

    assert asyncio.run(scenario()) == (1, 2)


def test_a_database_that_cannot_be_read_is_told(log):
    """Where the database fails, each question is a storage error, and the next one asks again."""

    async def scenario() -> int:
        proofs = Proofs(log.engine, 3600.0)
        log.engine.dispose()
        log.path.rename(log.path.with_name("away"))
        log.path.mkdir()
        for _ in range(2):
            with pytest.raises(StorageError):
                await proofs.newest()
        log.path.rmdir()
        log.path.with_name("away").rename(log.path)
        signed = await proofs.newest()
        assert signed is not None
        return signed.size

    assert asyncio.run(scenario()) == 5


def _counted(computed: list[int], cursor: DBAPICursor, ranges: list[Range]) -> list[list[bytes]]:
    """Fetch as ever, and note it."""
    computed.append(len(ranges))
    return fetch(cursor, ranges)
