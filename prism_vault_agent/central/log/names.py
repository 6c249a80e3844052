"""Keeps hosts' names with those of them that follow the signals, and tells each whether it has its own; see ``holding.py``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.audit.event import NAME_HELD
from prism_vault_agent.central.log.holding import LEFT_MS, Refusal, Sender, leave, renew
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.log.writer import Busy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.access.refusals import Refusals
    from prism_vault_agent.central.log.follower import Follower
    from prism_vault_agent.central.log.transaction import Transaction
    from prism_vault_agent.central.log.writer import Writer
    from prism_vault_agent.central.metrics import Metrics

# Seconds after which names are kept again, and those who have none try again.
AGAIN_SECONDS: Final = 5.0
SLACK_SECONDS: Final = 0.1
IN_ONE_TRANSACTION: Final = 200


class Names:
    """Those who follow the signals here and say which installation they are."""

    def __init__(self, writer: Writer, refusals: Refusals, metrics: Metrics) -> None:
        """Write through ``writer``; tell the operator through ``refusals`` and ``metrics`` of those who are refused."""
        self._writer = writer
        self._refusals = refusals
        self._metrics = metrics
        self._here: set[Follower] = set()
        self._left: set[Sender] = set()
        self._hosts: set[str] = set()  # of which somebody came or left
        self._news = asyncio.Event()
        metrics.nameless.set_function(lambda: sum(bool(each.refusal) for each in self._here))

    def join(self, follower: Follower) -> None:
        """Have ``follower`` get its host's name, or be told why not."""
        if follower.sender is not None:
            self._here.add(follower)
            self._look(follower.sender.host)

    def leave(self, follower: Follower, *, ended: bool) -> None:
        """Keep the name no longer with ``follower``, which has gone by itself, unless all streams are ``ended`` here."""
        self._here.discard(follower)
        if follower.sender is not None and not ended:
            self._left.add(follower.sender)
            self._look(follower.sender.host)

    def _look(self, host: str) -> None:
        self._hosts.add(host)
        self._news.set()

    async def refused(self, identity: Identity, sender: Sender, refusal: Refusal) -> None:
        """Put it on the log, once a minute for each installation, that it was refused the name."""
        self._metrics.names_refused.inc()
        who = f"of installation {sender.installation[:8]}" if sender.installation else "that names no installation"
        await self._refusals.record(identity, f"a release {who}", refusal.reason)

    async def run(self) -> None:
        """Keep names until cancelled: all of them every few seconds, at once those of hosts of which somebody came or left."""
        log, failed, again = structlog.get_logger("names"), False, 0.0
        while True:
            self._news.clear()
            due = time.monotonic() >= again
            again = time.monotonic() + AGAIN_SECONDS if due else again
            try:
                await self._keep(everybodys=due)
                failed = False
            except (StorageError, Busy) as error:
                if not failed:
                    log.error("names_unkept", cause=str(error))
                failed = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again - time.monotonic()):
                    await self._news.wait()

    async def _keep(self, *, everybodys: bool) -> None:
        self._left -= {each.sender for each in self._here if each.sender is not None}
        if left := frozenset(self._left):
            await self._writer.do(partial(_leave, senders=left))
            self._left -= left
            for sender in left:  # whoever waits for that name has it as soon as it is free
                asyncio.get_running_loop().call_later(LEFT_MS / 1000 + SLACK_SECONDS, self._look, sender.host)
        hosts, self._hosts = self._hosts, set()
        waiting = [each for each in self._here if each.sender is not None and (everybodys or each.sender.host in hosts)]
        waiting.sort(key=lambda each: each.sender or ())
        for start in range(0, len(waiting), IN_ONE_TRANSACTION):
            await self._turn(waiting[start : start + IN_ONE_TRANSACTION])

    async def _turn(self, followers: list[Follower]) -> None:
        found = await self._writer.do(partial(renew, senders=[each.sender for each in followers if each.sender is not None]))
        for follower, refusal in zip(followers, found, strict=True):
            if refusal is not None and refusal != follower.refusal and follower.sender is not None:
                structlog.get_logger("names").warning(
                    "name_refused", host=follower.sender.host, installation=follower.sender.installation, reason=refusal.reason
                )
                if refusal.reason == NAME_HELD:  # a stream that a start before has left half open is no cause for alarm
                    await self.refused(follower.identity, follower.sender, refusal)
            follower.stand(refusal)


def _leave(transaction: Transaction, senders: Iterable[Sender]) -> None:
    for sender in sorted(senders):
        leave(transaction, sender)
