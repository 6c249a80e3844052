"""How names are kept with those who follow: at once where somebody comes or leaves, and of nobody else for that."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.access.refusals import Refusals
from prism_vault_agent.central.log import names
from prism_vault_agent.central.log.follower import Follower
from prism_vault_agent.central.log.holding import Sender
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.metrics import Metrics

if TYPE_CHECKING:
    from functools import partial


class Writer:
    """A writer that gives the name to everybody, and whose disk fails when it shall."""

    def __init__(self) -> None:
        """Begin with a disk that works."""
        self.asked: list[tuple[str, list[str]]] = []
        self.failing = False
        self.failed, self.news = asyncio.Event(), asyncio.Event()

    async def do(self, work: partial[Any]) -> list[None]:
        """Take note of whose names are kept, or given back."""
        await asyncio.sleep(0)
        if self.failing:
            self.failed.set()
            raise StorageError("away")
        senders = sorted(work.keywords["senders"])
        self.asked.append((work.func.__name__, [each.epoch for each in senders]))
        self.news.set()
        return [None] * len(senders)


def follower(host: str, epoch: str) -> Follower:
    """Return who follows as a start of a host's agent."""
    return Follower(Identity(host, "agent", host, frozenset()), Sender(host, epoch, "i"))


async def until(*followers: Follower) -> None:
    """Wait until they know whether they have their names."""
    for each in followers:
        while not each.stands:
            assert await each.wait(30)


def test_who_comes_or_leaves_has_only_the_names_of_its_host_looked_at(monkeypatch):
    """Of a hundred hosts those are asked for of which somebody came or left; where the disk fails that is done afterwards.

    Whose name is free some time after its stream was closed is asked for just then, not when it is everybody's turn.
    """
    monkeypatch.setattr(names, "LEFT_MS", 1)
    monkeypatch.setattr(names, "AGAIN_SECONDS", 3600.0)
    writer = Writer()

    async def script() -> None:
        kept = names.Names(writer, Refusals(writer), Metrics("sqlite"))  # type: ignore[arg-type] # a writer whose disk fails when it shall
        here = [follower(f"h{number}", f"e{number}") for number in range(100)]
        for each in here:
            kept.join(each)
        running = asyncio.create_task(kept.run())
        await until(*here)
        assert sum(len(asked) for _, asked in writer.asked) == 100
        writer.asked.clear()

        kept.join(later := follower("h7", "later"))
        await until(later)
        assert writer.asked == [("renew", ["e7", "later"])]
        writer.asked.clear()

        writer.failing = True
        kept.leave(later, ended=False)
        await writer.failed.wait()
        writer.failing = False
        kept.join(new := follower("h8", "new"))
        await until(new)
        assert writer.asked == [("_leave", ["later"]), ("renew", ["e7", "e8", "new"])]
        while writer.asked[-1] != ("renew", ["e7"]):
            writer.news.clear()
            await asyncio.wait_for(writer.news.wait(), 30)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(script())
