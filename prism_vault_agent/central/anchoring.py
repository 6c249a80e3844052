"""Anchoring: the newest checkpoint is written out of the database's reach, every so often while there is a newer one.

Whoever can change the database, and has the key, can make another history; not the checkpoints that were written elsewhere.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.errors import AuditUnavailable, PrismVaultError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.central.anchors import Place
    from prism_vault_agent.central.log.proofs import Proofs

FIRST_PAUSE: Final = 1.0


@dataclass(slots=True)
class Anchored:
    """What became of one place since the start: the largest checkpoint there, how many were written, how many times it failed.

    ``trouble`` says why the last time failed, and is empty where it did not.
    """

    size: int = 0
    written: int = 0
    failures: int = 0
    trouble: str = ""


class Anchoring:
    """Writes checkpoints to places, each in its own time, so that one that hangs holds no other back."""

    def __init__(self, proofs: Proofs, places: Sequence[Place], every: float) -> None:
        """Look for a newer checkpoint of ``proofs`` every so many seconds."""
        self._proofs = proofs
        self._places = places
        self._every = every
        self._log = structlog.get_logger("anchoring")
        self.anchored = {place.name: Anchored() for place in places}

    def covered(self) -> int:
        """Return how many leaves are under a checkpoint that is in every place: since the start, before which it is not known."""
        return min(anchored.size for anchored in self.anchored.values())

    async def run(self) -> None:
        """Anchor until cancelled; the newest checkpoint at once, as what was anchored before the start is not known."""
        async with asyncio.TaskGroup() as group:
            for place in self._places:
                group.create_task(self._keep(place))

    async def _keep(self, place: Place) -> None:
        """Anchor in one place. After a failure it is tried again sooner, with what is then the newest checkpoint."""
        pause = FIRST_PAUSE
        while True:
            if await self._anchor(place):
                pause = FIRST_PAUSE
                await asyncio.sleep(self._every)
            else:
                await asyncio.sleep(min(pause, self._every))
                pause *= 2

    async def _anchor(self, place: Place) -> bool:
        """Write the newest checkpoint where it is newer than the last one there; tell whether that went well."""
        anchored = self.anchored[place.name]
        try:
            signed = await self._proofs.newest()
            if signed is not None and signed.size > anchored.size:
                await place.write(signed)
                anchored.size = signed.size
                anchored.written += 1
                self._log.info("checkpoint_anchored", place=place.name, size=signed.size)
            anchored.trouble = ""
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a place, it is tried again
            anchored.failures += 1
            anchored.trouble = _told(error)
            self._log.error("anchor_failed", place=place.name, cause=anchored.trouble, failures=anchored.failures)
        return not anchored.trouble


async def anchor_newest(proofs: Proofs, places: Sequence[Place]) -> int:
    """Write the newest checkpoint to every place now, and return how many leaves it covers; 0 where there is none yet.

    Raises ``AuditUnavailable`` that names the first place which did not take it, and ``StorageError``.
    """
    signed = await proofs.newest()
    if signed is None:
        return 0
    for place in places:
        try:
            await place.write(signed)
        except OSError as error:
            mend = "see to that place, and try again"
            raise AuditUnavailable(f"the newest checkpoint was not anchored ({place.name}: {_told(error)})", mend=mend) from None
    return signed.size


def _told(error: Exception) -> str:
    if isinstance(error, PrismVaultError):
        return error.line()
    return (str(error) if isinstance(error, OSError) else "") or type(error).__name__
