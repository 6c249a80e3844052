"""The events that wait for central and must outlive this process: in the journal, as far as the disk takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.errors import PrismVaultError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prism_vault_agent.audit.batch import Entry
    from prism_vault_agent.audit.ends import Journal

log = structlog.get_logger()


class Kept:
    """Events in the journal. ``failed``: the disk did not take what was to be kept last."""

    def __init__(self, journal: Journal) -> None:
        """Keep them in ``journal``."""
        self.failed = False
        self._journal = journal

    async def keep(self, entries: Iterable[Entry]) -> bool:
        """Keep durably what nobody waits for, up to the first that the disk does not take; tell whether it takes all."""
        left = [entry for entry in entries if entry.answer is None and not entry.kept]
        if not left:
            return True
        try:
            await self._journal.keep(*(entry.fields for entry in left))
        except PrismVaultError as error:
            if len(left) > 1:  # what is free may do for some of them
                half = len(left) // 2
                return await self.keep(left[:half]) and await self.keep(left[half:])
            self.failed = True
            told, fields = f"{error.message}; if the agent ends before central is back, records of ends are lost", left[0].fields
            log.critical("journal.failed", message=told, kind=fields["kind"], reservation=fields["reservation"])
            return False
        for entry in left:
            entry.kept = True
            entry.is_safe()
        self.failed = False
        return True

    async def drop(self, entries: Iterable[Entry]) -> None:
        """Forget the events among these that are kept."""
        kept = [str(entry.fields["event_id"]) for entry in entries if entry.kept]
        try:
            if kept:
                await self._journal.drop(*kept)
        except PrismVaultError as error:
            log.error("journal.failed", message=error.message)
