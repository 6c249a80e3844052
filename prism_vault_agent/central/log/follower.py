"""One who follows the signals: woken when there are new ones, and told to go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.log.holding import Refusal, Sender


class Follower:
    """One who waits for signals."""

    __slots__ = ("_waiting", "gone", "identity", "refusal", "sender", "stands")

    def __init__(self, identity: Identity, sender: Sender | None = None) -> None:
        """Wait for those that concern ``identity``, which is ``sender`` where it says which installation it is.

        ``stands`` tells whether it is known if that has its host's name, and ``refusal`` why not.
        """
        self.identity = identity
        self.sender = sender
        self.stands = False
        self.refusal: Refusal | None = None
        self.gone = False
        self._waiting: asyncio.Future[bool] | None = None

    def wake(self) -> None:
        """Let it look again."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(True)

    def stand(self, refusal: Refusal | None) -> None:
        """Take note of whether it has its host's name."""
        changed = not self.stands or refusal != self.refusal
        self.stands, self.refusal = True, refusal
        if changed:
            self.wake()

    def leave(self) -> None:
        """Let it end."""
        self.gone = True
        self.wake()

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken, for ``seconds`` at most; tell whether it was."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bool] = loop.create_future()
        self._waiting = waiting
        timer = loop.call_later(seconds, _time_out, waiting)
        try:
            return await waiting
        finally:
            timer.cancel()
            self._waiting = None


def _time_out(waiting: asyncio.Future[bool]) -> None:
    if not waiting.done():
        waiting.set_result(False)
