"""Whether this replica can do its work now, part by part; asked at most once a second, however many ask."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.log.standing import Standing, standing
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.log.writer import Busy

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from prism_vault_agent.central.access.issuer import TokenIssuer
    from prism_vault_agent.central.log.receipts import Receipts
    from prism_vault_agent.central.log.writer import Writer

PROBE_SECONDS: Final = 1.0
# How long an event may wait for its checkpoint. It is a second where all is well.
LATE_SECONDS: Final = 5.0
# How long a database may take to say that it works.
ANSWER_SECONDS: Final = 3.0
OK: Final = "ok"
# What each part can be. Receipts alone keep nobody from calling: rows without one are as durable.
PARTS: Final = {
    "storage": (OK, "failing"),
    "checkpoint": (OK, "late", "unknown"),
    "issuer": (OK, "unreachable"),
    "receipts": (OK, "unsigned"),
}
NEEDED: Final = ("storage", "checkpoint", "issuer")


class Answer(NamedTuple):
    """What each part of :data:`PARTS` is, and where the log stands, as far as it could be read."""

    parts: dict[str, str]
    standing: Standing | None

    @property
    def ready(self) -> bool:
        """Tell whether all that is needed works."""
        return all(self.parts[part] == OK for part in NEEDED)


class Readiness:
    """Asks the writer, the rows, the issuer and the signer."""

    def __init__(self, writer: Writer, readers: Engine, issuer: TokenIssuer | None, receipts: Receipts) -> None:
        """Ask these; without an ``issuer`` there is nothing to reach."""
        self._writer = writer
        self._readers = readers
        self._issuer = issuer
        self._receipts = receipts
        self._asked = -PROBE_SECONDS
        self._answer = Answer({}, None)
        self._asking = asyncio.Lock()
        self._log = structlog.get_logger("readiness")

    async def answer(self) -> Answer:
        """Return how it was within the last second."""
        async with self._asking:
            if time.monotonic() - self._asked >= PROBE_SECONDS:
                before, self._answer = self._answer, await self._ask()
                self._asked = time.monotonic()
                if before.parts != self._answer.parts:
                    told = self._log.info if self._answer.ready else self._log.error
                    told("ready" if self._answer.ready else "not_ready", **self._answer.parts)
            return self._answer

    async def _ask(self) -> Answer:
        storage, reached, found = await asyncio.gather(self._storage(), self._reached(), self._stands())
        parts = {
            "storage": storage,
            "checkpoint": _freshness(found),
            "issuer": reached,
            "receipts": "unsigned" if self._receipts.trouble else OK,
        }
        return Answer(parts, found)

    async def _storage(self) -> str:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._writer.probe()
        except (StorageError, Busy, TimeoutError):
            return "failing"
        return OK

    async def _reached(self) -> str:
        return OK if self._issuer is None or await self._issuer.reachable() else "unreachable"

    async def _stands(self) -> Standing | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.to_thread(standing, self._readers)
        except (SQLAlchemyError, TimeoutError):
            return None


def _freshness(found: Standing | None) -> str:
    """Return what the checkpoint is: late where an event waits for it too long."""
    if found is None:
        return "unknown"
    waited = 0.0 if found.waiting_since is None else time.time() - found.waiting_since / 1000
    return "late" if waited > LATE_SECONDS else OK
