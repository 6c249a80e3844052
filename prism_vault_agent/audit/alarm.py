"""That the log is not what it was: told, kept as evidence, and in force until an operator has taken the evidence away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from prism_vault_agent.audit.answers import REFUSED
from prism_vault_agent.errors import IntegrityError, PrismVaultError

if TYPE_CHECKING:
    from prism_vault_agent.audit.held import WitnessFiles
    from prism_vault_agent.audit.our_rows import Row

log = structlog.get_logger()


class Alarm:
    """``found`` is what is wrong, in words; empty while nothing is."""

    def __init__(self, files: WitnessFiles, keys: list[str]) -> None:
        """Keep evidence in ``files``; ``keys`` are the texts of those that the log was judged with."""
        self.found = ""
        self._files = files
        self._keys = keys
        self._unwritten: dict[str, Any] | None = None

    @property
    def error(self) -> IntegrityError:
        """What a caller is told, anew for each of them."""
        return IntegrityError(self.found, mend=REFUSED)

    async def recall(self) -> None:
        """Be in force where an earlier agent has left evidence."""
        self.found = await asyncio.to_thread(self._files.accused)
        if self.found:
            log.critical("log.refused", message=self.error.line(), evidence=self._files.evidence)

    async def sound(self, found: str, given: bytes, row: Row | None) -> None:
        """Be in force from now on: ``given`` is central's answer, ``row`` the one whose proof was asked for."""
        self.found = found
        self._unwritten = {
            "found": found,
            "keys": self._keys,
            "given": given.decode("utf-8", "replace"),
            "row": {"n": row.n, "receipt": row.promise.plain()} if row else None,
        }
        log.critical("log.refused", message=self.error.line(), evidence=self._files.evidence)
        await self._write()

    async def over(self) -> bool:
        """Tell whether the evidence was taken away; it is written first where the disk had not taken it."""
        if self._unwritten is not None:
            await self._write()
        elif not await asyncio.to_thread(self._files.accused):
            self.found = ""
        return not self.found

    async def _write(self) -> None:
        try:
            await asyncio.to_thread(self._files.accuse, self._unwritten or {})
        except PrismVaultError as error:
            log.error("witness.failed", message=error.line())
        else:
            self._unwritten = None
