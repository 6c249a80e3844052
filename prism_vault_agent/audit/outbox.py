"""The one way to central: events leave in order, chained, at most one batch under way, and are asked for again until answered.

A batch whose answer was lost is *in doubt*: it is sent again byte for byte before anything else, because central may have
taken it; its event ids make that harmless. So a row is never doubled and the chain never forks.

What waits is bounded. Beyond the bound nothing is reserved, so nothing is released; the ends of what was released are still
taken, there are no more of them than runs. What callers can cause without end is then only counted, and the count recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.audit import rows
from prism_vault_agent.audit.answers import NOT_ATTEMPTED, WRONG, against, not_taken, of_central
from prism_vault_agent.audit.batch import ENDLESS, Batch, Entry, full, seal
from prism_vault_agent.audit.kept import Kept
from prism_vault_agent.errors import AuditUnavailable, PrismVaultError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.audit.answers import Answer
    from prism_vault_agent.audit.ends import Journal, Post
    from prism_vault_agent.audit.event import Chain, Fields

log = structlog.get_logger()

LINGER: Final = 0.05
PAUSE_FIRST: Final = 0.05
PAUSE_AWAITED: Final = 0.25
PAUSE_LONGEST: Final = 5.0


@dataclass(slots=True)
class Outbox:
    """Events for central, in order."""

    chain: Chain
    post: Post
    journal: Journal
    trouble: PrismVaultError | None = None
    lost: int = 0
    _kept: Kept = field(init=False)
    _waiting: deque[Entry] = field(default_factory=deque)
    _in_doubt: Batch | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _urgent: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Keep what waits in the journal."""
        self._kept = Kept(self.journal)

    @property
    def reachable(self) -> bool:
        """Whether central took what was sent last."""
        return self.trouble is None

    @property
    def queued(self) -> int:
        """How many events central has not confirmed yet."""
        return len(self._waiting) + (len(self._in_doubt[0]) if self._in_doubt else 0)

    @property
    def refusal(self) -> AuditUnavailable | None:
        """Why nothing more may be reserved, and so released: too much waits, or the disk does not keep what waits."""
        if full(self._waiting):
            return AuditUnavailable("too many audit records are waiting for central", mend="retry when central is up")
        if self._kept.failed:
            told = "audit records that wait for central cannot be kept on this host"
            return AuditUnavailable(told, mend="make room where the agent keeps its state; its log says why")
        return None

    async def send(self, fields: Fields, seconds: float) -> Answer:
        """Return central's answer to an event, once it is durable there. Raises ``AuditUnavailable`` after ``seconds``."""
        if refusal := self.refusal:
            raise refusal
        entry = Entry(fields, asyncio.get_running_loop().create_future())
        self._put(entry)
        assert entry.answer is not None
        try:
            async with asyncio.timeout(seconds):
                return await entry.answer
        except TimeoutError:
            raise not_taken(f"central did not take the audit record in {seconds:g} s", self.trouble) from None
        finally:
            entry.answer.cancel()

    def tell(
        self,
        fields: Fields,
        then: Callable[[Answer], None] | None = None,
        *,
        durable: bool = False,
        kept: bool = False,
        safe: Callable[[], None] | None = None,
    ) -> None:
        """Send an event that nobody waits for.

        It is kept in the journal if central does not take it at the first attempt; before that, where it is ``durable``.
        ``kept`` says that the journal has it already; ``safe`` is called when it or central has it. Beyond the bound, what has
        no end is only counted.
        """
        if not kept and fields["kind"] in ENDLESS and "signal" not in fields and full(self._waiting):
            if not self.lost:
                told = "too many records wait for central: until it has taken them, denials and reloads are only counted"
                log.critical("audit.full", waiting=len(self._waiting), message=told)
            self.lost += 1
            return
        self._put(Entry(fields, then=then, durable=durable, kept=kept, safe=safe))

    def _put(self, entry: Entry) -> None:
        self._waiting.append(entry)
        self._idle.clear()
        self._news.set()
        if entry.answer or entry.durable:
            self._urgent.set()

    async def run(self) -> None:
        """Ship events until cancelled."""
        pause = PAUSE_FIRST
        while True:
            await self._kept.keep(entry for entry in self._waiting if entry.durable)
            batch = self._in_doubt or seal(self.chain, self._waiting)
            if batch is None:
                await self._wait()
                continue
            self._in_doubt = batch
            try:
                answers = await self.post(batch[1])
            except PrismVaultError as error:
                await self._away(error)
                pause = await self._pause(pause)
                continue
            self._in_doubt = None
            self.trouble, pause = None, PAUSE_FIRST
            await self._settle(*batch, answers)

    async def _wait(self) -> None:
        """Wait for an event; one that nobody waits for waits a moment for company, so that it costs no request of its own."""
        self._idle.set()
        self._news.clear()
        await self._news.wait()
        if not any(entry.answer or entry.durable for entry in self._waiting):
            await self._urgent_within(LINGER)

    async def _pause(self, seconds: float) -> float:
        """Wait before the next attempt and return how long to wait before the one after it.

        Whoever waits, or comes to wait, wants to know whether central is still away: the pause is short for it.
        """
        jitter = random.uniform(0.75, 1.25)  # noqa: S311 - jitter is no secret
        in_doubt = self._in_doubt[0] if self._in_doubt else []
        if any(entry.answer and not entry.given_up for entry in (*in_doubt, *self._waiting)):
            await asyncio.sleep(min(seconds, PAUSE_AWAITED) * jitter)
        elif await self._urgent_within(seconds * jitter):
            return PAUSE_FIRST
        return min(seconds * 2, PAUSE_LONGEST)

    async def _urgent_within(self, seconds: float) -> bool:
        """Wait for an event that cannot wait, for ``seconds`` at most; tell whether one came."""
        self._urgent.clear()
        try:
            async with asyncio.timeout(seconds):
                return await self._urgent.wait()
        except TimeoutError:
            return False

    async def flush(self, seconds: float) -> None:
        """Wait until nothing is queued, for ``seconds`` at most; keep durably what is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        self._tell_lost()
        await self._keep_all()

    def _tell_lost(self) -> None:
        """Record how many records were only counted."""
        if self.lost:
            message = f"{self.lost} denials or reloads of this host have no record: too many waited for central"
            self.lost = 0
            self._put(Entry(rows.admin("records_lost", message), durable=True))

    async def _away(self, error: PrismVaultError) -> None:
        """Note that central did not answer, and keep durably what nobody waits for."""
        found, before = of_central(error), self.trouble
        if before is None or before.reason != error.reason or of_central(before).get("code") != found.get("code"):
            if error.reason == WRONG:
                log.critical("receipt.wrong", message=error.line(), **found)
            else:
                log.warning("central.away", reason=error.reason, message=error.message, **found)
        self.trouble = error
        await self._keep_all()

    async def _keep_all(self) -> None:
        await self._kept.keep((*(self._in_doubt[0] if self._in_doubt else []), *self._waiting))

    async def _settle(self, entries: list[Entry], bodies: list[bytes], answers: list[Answer]) -> None:
        """Move the chain over what was appended, tell who waits, and queue again what was not attempted."""
        again: list[Entry] = []
        settled: list[Entry] = []
        for entry, body, answer in zip(entries, bodies, answers, strict=True):
            if answer["status"] == NOT_ATTEMPTED:
                again.append(entry)
                continue
            if answer.get("appended"):
                self.chain.accept(body)
            if answer.get("reason") == "chain":
                told = "central's log does not continue ours: nothing is released until a restart"
                log.critical("audit.chain_broken", message=told)
                await self._kept.keep([entry])
            else:
                if (said := against(entry.fields, answer)) is not None:
                    log.warning(said[0], **said[1])
                settled.append(entry)
                entry.is_safe()
            if entry.answer is not None and not entry.answer.done():
                entry.answer.set_result(answer)
            if entry.then is not None:
                entry.then(answer)
        self._waiting.extendleft(reversed(again))
        await self._kept.drop(settled)
        self._kept.failed = self._kept.failed and bool(self._waiting)
        if not full(self._waiting):
            self._tell_lost()
