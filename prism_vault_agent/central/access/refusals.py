"""Refused attempts to change what others may do or have, on the audit log: who tried what, once a minute however often it is."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.log.writer import Busy

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.log.transaction import Transaction
    from prism_vault_agent.central.log.writer import Writer

AGAIN_AFTER: Final = 60.0
# How many are recorded within that time: who is refused may choose by what it is known.
MOST: Final = 1_000


class Refusals:
    """Writes them through one writer."""

    def __init__(self, writer: Writer, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing recorded; ``clock`` gives seconds."""
        self._writer = writer
        self._clock = clock
        self._recorded: dict[tuple[str, str, str], float] = {}

    async def record(self, who: Identity, what: str, reason: str) -> None:
        """Record that ``who`` may not do ``what``; where the log does not take it, or has taken so many, the next time."""
        key, now = (who.by, who.name, what), self._clock()
        if now < self._recorded.get(key, now):
            return
        if len(self._recorded) >= MOST:
            self._recorded = {known: until for known, until in self._recorded.items() if until > now}
        if len(self._recorded) >= MOST:
            return
        self._recorded[key] = now + AGAIN_AFTER  # before it is written, so that many at once are one
        try:
            await self._writer.do(partial(_insert, who=who, what=what, reason=reason))
        except (StorageError, Busy):
            self._recorded.pop(key, None)


def _insert(transaction: Transaction, who: Identity, what: str, reason: str) -> None:
    of = f"the agent of {who.host}" if who.host else f"operator {who.name}"
    told = {"kind": "admin", "reservation": new_id(), "reason": "refused", "message": f"{what} by {of}: {reason}", "by": who.who}
    about = {"about_host": who.host} if who.host else {}
    transaction.insert_own({**told, **about, "project": None, "environment": None, "scopes": []})
