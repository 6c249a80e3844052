"""Workers that many renders hand on: each is used by one at a time, not too often, and none is left at the end."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from prism_vault_agent.agent.shared_workers import MOST, SharedWorkers
from prism_vault_agent.agent.workers import Worker, Workers


class Made:
    """Makes workers whose other end the test holds."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    async def take(self, _deadline: float) -> Worker:
        """Return a new one."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.ends.append(theirs)
        return Worker(ours)

    def ended(self, number: int) -> bool:
        """Tell whether a worker was let go."""
        try:
            return self.ends[number].recv(1) == b""
        except BlockingIOError:
            return False


def sharing(made: Made) -> SharedWorkers:
    return SharedWorkers(cast("Workers", made))


def test_a_worker_is_handed_on_and_ends_after_so_many_jobs():
    """One job after the other is one worker's, up to the bound; the next is a new one's, and the end of the block ends it."""

    async def play() -> None:
        made = Made()
        with sharing(made) as shared:
            for _ in range(MOST + 1):
                shared.done(await shared.take(0))
            assert (len(made.ends), made.ended(0), made.ended(1)) == (2, True, False)
        assert made.ended(1)
        for end in made.ends:
            end.close()

    asyncio.run(play())


def test_a_worker_is_used_by_one_at_a_time_and_only_while_it_lives():
    """Two who ask at once get two workers; one that has ended meanwhile is not handed on."""

    async def play() -> None:
        made = Made()
        with sharing(made) as shared:
            first, second = await shared.take(0), await shared.take(0)
            assert first is not second
            shared.done(first)
            made.ends[0].close()
            third = await shared.take(0)
            assert third not in (first, second)
            shared.done(second)
            shared.done(third)
        assert made.ended(1) and made.ended(2)
        for end in made.ends:
            end.close()

    asyncio.run(play())
