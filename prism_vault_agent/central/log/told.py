"""Puts on the log which hosts a revocation was told to, so that one that never answers is known to have been told."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.log.evidence import TOLD
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.log.writer import Busy
from prism_vault_agent.central.storage import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.audit.event import Fields
    from prism_vault_agent.central.log.feed import Feed, Signal
    from prism_vault_agent.central.log.transaction import Transaction
    from prism_vault_agent.central.log.writer import Writer

# Names of hosts in one row, so that it is well below the largest event.
IN_ONE_ROW: Final = 1_000
ATTEMPTS: Final = 5
PAUSE_SECONDS: Final = 1.0


class ToldRows:
    """Writes the rows, one revocation after the other, while hosts are told the next."""

    def __init__(self, feed: Feed, writer: Writer) -> None:
        """Write through ``writer`` who of ``feed`` was told."""
        self._feed = feed
        self._writer = writer
        self._waiting: asyncio.Queue[tuple[int, list[str]]] = asyncio.Queue()

    def note(self, signal: Signal) -> None:
        """Take note of a signal that everyone who follows has been woken for."""
        if signal.kind == "revocation" and (hosts := self._feed.hosts(signal)):
            self._waiting.put_nowait((signal.id, hosts))

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            number, hosts = await self._waiting.get()
            for start in range(0, len(hosts), IN_ONE_ROW):
                await self._write(number, hosts[start : start + IN_ONE_ROW])

    async def _write(self, number: int, hosts: Sequence[str]) -> None:
        for _ in range(ATTEMPTS):
            try:
                await self._writer.do(partial(_record, number=number, hosts=hosts))
            except (StorageError, Busy):
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return
        structlog.get_logger("signals").error("told_unrecorded", signal=number, hosts=len(hosts))


def _record(transaction: Transaction, number: int, hosts: Sequence[str]) -> None:
    fields: Fields = {
        "kind": "admin",
        "reservation": new_id(),
        "project": None,
        "environment": None,
        "scopes": [],
        "reason": TOLD,
        "message": f"signal {number} was sent to {len(hosts)} hosts",
        "signal": number,
        "hosts": list(hosts),
    }
    placed = transaction.insert_own(fields)
    transaction.also(schema.ack, (number, placed.n, OWN_HOST, transaction.now))
