"""How long the last rotation of each run took: from when it was noticed until it was told, and until it had newer values."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.agent.leases.child import now
from prism_vault_agent.agent.stages import RotationTime, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prism_vault_agent.agent.stages import Stage

# Of the runs that were rotated before these no more is told than that they were.
REMEMBERED: Final = 4096


class RunTimes:
    """The last rotations, by the audit ids of the runs. ``took`` is told each stage of each, with its seconds.

    Noticed is on CLOCK_BOOTTIME, since it may have been an earlier agent that did.
    """

    def __init__(self, took: Callable[[Stage, float], None]) -> None:
        """Know of none yet."""
        self._took = took
        self._last: dict[str, RotationTime] = {}

    def switched(self, audit_id: str, noticed: float) -> dict[str, int]:
        """Note that a run was signalled or asked to end, or has ended for the next one; return the milliseconds that took."""
        rotation = RotationTime(noticed, time.time())
        self._mark(rotation, "switched", now() - noticed)
        self._remember(audit_id, rotation)
        return milliseconds(rotation.stages)

    def restarted(self, after: str | None, audit_id: str, at: Mapping[Stage, float]) -> dict[str, int]:
        """Note that a run was given values in these stages (CLOCK_MONOTONIC) in the place of the one ``after`` which it is.

        Return the milliseconds to each stage; nothing where that is no rotation.
        """
        rotation = self._last.pop(after or "", None)
        if rotation is None:
            return {}
        offset = now() - time.monotonic() - rotation.noticed
        for stage, when in at.items():
            self._mark(rotation, stage, when + offset)
        rotation.at = time.time()
        self._remember(audit_id, rotation)
        return milliseconds(rotation.stages)

    def describe(self, audit_id: str) -> dict[str, Any] | None:
        """Return what ``status`` shows of the last rotation of a run: seconds from when it was noticed to each stage."""
        rotation = self._last.get(audit_id)
        return rotation.describe() if rotation else None

    def _mark(self, rotation: RotationTime, stage: Stage, seconds: float) -> None:
        rotation.stages[stage] = max(0.0, seconds)
        self._took(stage, rotation.stages[stage])

    def _remember(self, audit_id: str, rotation: RotationTime) -> None:
        self._last[audit_id] = rotation
        while len(self._last) > REMEMBERED:
            del self._last[next(iter(self._last))]
