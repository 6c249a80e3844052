"""This host as a witness of central's log: it remembers, and where the log is not what it was, nothing is released any more.

Before the first release after a start, within about a second of each row of ours, and every few minutes otherwise, central must
show that its newest checkpoint begins with the one that we hold; then that one of our rows since the last time, drawn by lot, is
in it, and at last the newest of them. After a start that row is the newest that we knew of. See docs/adr/0042.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from prism_vault_agent.audit.alarm import Alarm
from prism_vault_agent.audit.checkpoints import CHECKPOINT, PROOF, grown, included, unproved
from prism_vault_agent.audit.held import Held
from prism_vault_agent.audit.our_rows import OurRows
from prism_vault_agent.audit.receipts import promise
from prism_vault_agent.errors import IntegrityError, PrismVaultError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.audit.answers import Answer
    from prism_vault_agent.audit.held import WitnessFiles
    from prism_vault_agent.proof.keys import VerifyingKey

log = structlog.get_logger()

# Seconds: between a row of ours and the look for it, between two looks, until the next look when nothing happens.
SETTLE: Final = 0.5
EVERY: Final = 1.0
IDLE: Final = 300.0
# Seconds: the first and the longest pause after a look that proved nothing, and how long that may go on.
PAUSE_FIRST: Final = 0.2
PAUSE_LONGEST: Final = 5.0
PATIENCE: Final = 60.0


class Get(Protocol):
    """Asks central; raises ``AuditUnavailable`` where there is no answer."""

    async def __call__(self, path: str) -> tuple[int, bytes]:
        """Return status and body."""


class Note(Protocol):
    """Records on the log what became of the host, with a stable word and a sentence."""

    def __call__(self, reason: str, message: str) -> None:
        """Never waits, never raises."""


class Witness:
    """What this host knows of the log, and whether it may be believed now."""

    def __init__(self, keys: Sequence[VerifyingKey], get: Get, files: WitnessFiles) -> None:
        """Believe these ``keys``, all of one name, ask with ``get``, remember in ``files``. Set ``note`` before it runs."""
        self.note: Note = lambda _reason, _message: None
        self._keys = keys
        self._get = get
        self._files = files
        self._alarm = Alarm(files, list(map(str, keys)))
        self._held: Held | None = None  # before it was looked up
        self._given = b""
        self._ours = OurRows()
        self._trouble: PrismVaultError | None = None
        self._failing_since: float | None = None
        self._checked_at: float | None = None
        self._next_pause = PAUSE_FIRST
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()
        self._told = asyncio.Event()

    def heard(self, bodies: Sequence[bytes], answers: Sequence[Answer], receipt: Any) -> None:
        """Take note of central's answer to a batch. Raises ``AuditUnavailable`` unless its receipt verifies."""
        self._news.set()  # a receipt that does not verify is news too
        if given := promise(self._keys, bodies, answers, receipt):
            self._ours.add(given)

    @property
    def refusal(self) -> PrismVaultError | None:
        """Why nothing may be released now: the log is not what it was, or whether it is cannot be told."""
        if self._alarm.found:
            return self._alarm.error
        if self._told.is_set() and not self._overdue():
            return None
        return self._trouble_told()

    async def vouch(self, seconds: float) -> None:
        """Return once the log may be believed. Raises ``IntegrityError`` where not, ``AuditUnavailable`` after ``seconds``."""
        if self._overdue():
            self._told.clear()
        if not self._told.is_set():
            self._wanted.set()
            await _within(self._told, seconds)
        if refusal := self.refusal:
            raise refusal

    def tell(self) -> dict[str, Any]:
        """Return what ``status`` shows."""
        tree = self._held.checkpoint if self._held else None
        return {
            "state": "refused" if self._alarm.found else "unproved" if self.refusal else "proved",
            "origin": self._keys[0].name,
            "size": tree.size if tree else 0,
            "checked_at": None if self._checked_at is None else int(self._checked_at),
            "last_error": self._alarm.found or (self._trouble.message if self._trouble else ""),
            "evidence": self._files.evidence if self._alarm.found else "",
        }

    async def run(self) -> None:
        """Look after the log until cancelled."""
        await self._alarm.recall()
        if self._alarm.found:
            self._told.set()
        while True:
            begun = time.monotonic()
            if not self._alarm.found:
                await self._turn()
            elif await self._alarm.over():
                self._begin_anew()
                continue
            await self._pause(begun)

    async def _pause(self, begun: float) -> None:
        """Wait for the next look, after one that was ``begun`` at that time."""
        if self._alarm.found:
            await asyncio.sleep(EVERY)
        elif self._trouble is not None:
            await _within(self._wanted, self._next_pause)
            self._next_pause = min(self._next_pause * 2, PAUSE_LONGEST)
        else:
            self._next_pause = PAUSE_FIRST
            if not self._ours.pending and await _within(self._news, IDLE):
                await asyncio.sleep(SETTLE)
            await asyncio.sleep(max(0.0, begun + EVERY - time.monotonic()))

    async def close(self) -> None:
        """Keep the newest row of ours for the next start; to be called when :meth:`run` has ended."""
        if self._held is not None and self._ours.newest is not None and not self._alarm.found:
            try:
                await asyncio.to_thread(self._files.keep, replace(self._held, row=self._ours.newest))
            except PrismVaultError as error:
                log.error("witness.failed", message=error.line())

    async def _turn(self) -> None:
        """Look once, and take note of what came of it."""
        self._news.clear()
        self._wanted.clear()
        try:
            held = self._held or await self._recall()
            await self._prove(await self._grow(held))
        except IntegrityError as error:
            self.note("log_refused", error.message)
            await self._alarm.sound(error.message, self._given, self._ours.asked)
            self._told.set()
        except PrismVaultError as error:
            if self._trouble is None or self._trouble.reason != error.reason:
                log.warning("log.unproved", reason=error.reason, message=error.message)
            self._trouble = error
            self._failing_since = self._failing_since or time.monotonic()
        else:
            self._trouble = self._failing_since = None
            self._checked_at = time.time()
            self._told.set()

    async def _recall(self) -> Held:
        """Know again what an earlier agent knew."""
        self._given = b""
        self._held = await asyncio.to_thread(self._files.load)
        self._ours.resume(self._held.row)
        return self._held

    async def _grow(self, held: Held) -> Held:
        """Have central show a checkpoint that extends the one held; keep it in its place and return it."""
        status, self._given = await self._get(CHECKPOINT.format(size=held.checkpoint.size if held.checkpoint else 0))
        newer = grown(self._keys, held.checkpoint, status, self._given)
        if newer is not None and newer[0] != held.checkpoint:
            held = Held(*newer, self._ours.newest)
            await asyncio.to_thread(self._files.keep, held)
            self._held = held
        return held

    async def _prove(self, held: Held) -> None:
        """Have central show one of our rows in the checkpoint that is held. It may be missing there, but not for long."""
        row, tree = self._ours.draw(), held.checkpoint
        if row is None:
            return
        if tree is not None:
            status, self._given = await self._get(PROOF.format(n=row.n, size=tree.size))
            if included(row.n, row.leaf, tree, status, self._given):
                self._ours.proved()
                return
        if self._ours.waiting() > PATIENCE:
            raise unproved(f"row {row.n}, for which central has signed, is in no checkpoint after {PATIENCE:.0f} s")

    def _overdue(self) -> bool:
        return self._failing_since is not None and time.monotonic() - self._failing_since > PATIENCE

    def _trouble_told(self) -> PrismVaultError:
        told = self._trouble
        if told is None:
            return unproved("central was not asked yet", mend="retry")
        return unproved(told.message.removeprefix(unproved("").message), told.mend)

    def _begin_anew(self) -> None:
        """Go on from what is held now: an operator has settled the matter."""
        log.warning("log.accepted", message="the evidence was taken away: the log is looked at again")
        self._held, self._ours = None, OurRows()
        self._told.clear()
        self.note("log_accepted", "an operator has taken the evidence away; the log is looked at again")


class Unwitnessed:
    """Central is believed, because no key of its log is configured: the same as a witness that never finds anything."""

    note: Note
    refusal: PrismVaultError | None = None

    def heard(self, bodies: Sequence[bytes], answers: Sequence[Answer], receipt: Any) -> None:
        """Take note of nothing."""

    async def vouch(self, seconds: float) -> None:
        """Return at once."""

    def tell(self) -> dict[str, Any]:
        """Return what ``status`` shows."""
        return {"state": "believed", "origin": "", "size": 0, "checked_at": None, "last_error": "", "evidence": ""}

    async def run(self) -> None:
        """Return at once."""

    async def close(self) -> None:
        """Return at once."""


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, for ``seconds`` at most; tell whether it came."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
