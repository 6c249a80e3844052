"""When each step of a render was done, and how long a rotation took from when it was noticed to whoever uses it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from prism_vault_agent.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prism_vault_agent.model import Caller, Grant, Receipt, Render, Request, Reservation, Resolution
    from prism_vault_agent.policy.decide import Denial
    from prism_vault_agent.render import AuditLog, Provider, Sink
    from prism_vault_agent.scope import ScopeName

Mode = Literal["exec", "file", "credential"]
Stage = Literal["switched", "reserved", "read", "recorded", "released", "told"]
Outcome = Literal["released", "denied", "failed"]
STAGES: Final[tuple[Stage, ...]] = ("reserved", "read", "recorded", "released", "told")
RUN_STAGES: Final[tuple[Stage, ...]] = ("switched", *STAGES[:-1])


class Timed:
    """The three adapters of one render as one, with a note of when each step was done and of how it ended.

    ``mark`` is told each stage with its seconds since the one before, ``ended`` the outcome, once. ``at`` has when each was done,
    on CLOCK_MONOTONIC. Nothing else is different.
    """

    def __init__(
        self,
        audit: AuditLog,
        provider: Provider,
        sink: Sink,
        mark: Callable[[Stage, float], None],
        ended: Callable[[Outcome], None],
    ) -> None:
        """Begin to count now."""
        self._audit, self._provider, self._sink = audit, provider, sink
        self._mark, self._ended = mark, ended
        self._last = time.monotonic()
        self.at: dict[Stage, float] = {}

    def _done(self, stage: Stage) -> None:
        now = self.at[stage] = time.monotonic()
        self._mark(stage, now - self._last)
        self._last = now

    async def reserve(self, grant: Grant) -> Reservation:
        """Reserve."""
        try:
            reservation = await self._audit.reserve(grant)
        except BaseException as error:
            self._ended(outcome(error))
            raise
        self._done("reserved")
        return reservation

    async def succeed(self, resolution: Resolution) -> Receipt:
        """Record the success."""
        receipt = await self._audit.succeed(resolution)
        self._done("recorded")
        return receipt

    def fail(self, reservation: Reservation, error: BaseException) -> None:
        """Record the failure."""
        self._ended(outcome(error))
        self._audit.fail(reservation, error)

    def deny(self, caller: Caller, request: Request, denial: Denial) -> str:
        """Record the denial."""
        self._ended("denied")
        return self._audit.deny(caller, request, denial)

    def clear(self, reservation: Reservation, reason: str) -> None:
        """Record that it was not delivered."""
        self._ended("failed")
        self._audit.clear(reservation, reason)

    async def resolve(self, reservation: Reservation) -> Resolution:
        """Read."""
        resolution = await self._provider.resolve(reservation)
        self._done("read")
        return resolution

    def drop(self, resolution: Resolution) -> None:
        """Forget what was read."""
        self._provider.drop(resolution)

    def check(self) -> None:
        """Look at the receiver again."""
        self._sink.check()

    async def deliver(self, receipt: Receipt) -> Render:
        """Release."""
        render = await self._sink.deliver(receipt)
        self._done("released")
        self._ended("released")
        return render


def outcome(error: BaseException) -> Outcome:
    """Return how a render ended that this error ended."""
    return "denied" if isinstance(error, Denied) else "failed"


@dataclass(slots=True)
class RotationTime:
    """One rotation of a scope's files or of a run: when it was noticed, when it was over, and its stages in seconds.

    ``noticed`` is on CLOCK_MONOTONIC for files.
    """

    noticed: float
    at: float = 0.0
    stages: dict[Stage, float] = field(default_factory=dict)

    def mark(self, stage: Stage) -> float:
        """Note that a stage is done, and return how long that is after it was noticed."""
        self.stages[stage] = time.monotonic() - self.noticed
        return self.stages[stage]

    def describe(self) -> dict[str, Any]:
        """Return what ``status`` shows of it: seconds from when it was noticed to each stage, in their order."""
        return {"at": int(self.at), "stages": {stage: round(seconds, 3) for stage, seconds in self.stages.items()}}


def milliseconds(stages: Mapping[Stage, float]) -> dict[str, int]:
    """Return what a row of the log says of the stages of a rotation."""
    return {stage: round(seconds * 1000) for stage, seconds in stages.items()}


class RotationTimes:
    """The last rotation of each scope, and those that are under way. ``took`` is told each stage of each, with its seconds."""

    def __init__(self, took: Callable[[Stage, float], None]) -> None:
        """Know of none yet."""
        self._took = took
        self._noticed: dict[ScopeName, RotationTime] = {}
        self._under_way: dict[ScopeName, Mapping[Stage, float]] = {}
        self._last: dict[ScopeName, RotationTime] = {}

    def noticed(self, stale: Iterable[ScopeName]) -> None:
        """Note which scopes are to be rendered anew; one that was noticed before is not noticed again."""
        now = time.monotonic()
        self._noticed = {name: self._noticed.get(name) or RotationTime(now) for name in stale}

    @contextlib.contextmanager
    def rendering(self, name: ScopeName, stages: Mapping[Stage, float]) -> Iterator[None]:
        """Note that a scope is rendered within, and was unless that raises; ``stages`` say what is done, and when.

        Those times are on CLOCK_MONOTONIC.
        """
        self._under_way[name] = stages
        try:
            yield
        finally:
            del self._under_way[name]
        self._rendered(name, stages)

    def _rendered(self, name: ScopeName, stages: Mapping[Stage, float]) -> None:
        rotation = self._noticed.pop(name, None)
        if rotation is None:
            self._last.pop(name, None)  # rendered because somebody asked: that is no rotation
            return
        rotation.at = time.time()
        rotation.stages = {stage: max(0.0, at - rotation.noticed) for stage, at in stages.items()}
        self._last[name] = rotation
        for stage, seconds in rotation.stages.items():
            self._took(stage, seconds)

    def told(self, name: ScopeName) -> dict[str, int]:
        """Note that a consumer of the newest files was told; return the milliseconds to each stage, if it was a rotation."""
        if (rotation := self._last.get(name)) is None:
            return {}
        self._took("told", rotation.mark("told"))
        return milliseconds(rotation.stages)

    def so_far(self, name: ScopeName) -> dict[str, int]:
        """Return the milliseconds from when a rotation was noticed to each stage that is done; nothing where there is none."""
        rotation = self._noticed.get(name)
        if rotation is not None and name in self._under_way:
            return milliseconds({stage: at - rotation.noticed for stage, at in self._under_way[name].items()})
        return milliseconds(self._last[name].stages) if name in self._last else {}

    def describe(self, name: ScopeName) -> dict[str, Any] | None:
        """Return what ``status`` shows of the last rotation of a scope: seconds from when it was noticed to each stage."""
        rotation = self._last.get(name)
        return rotation.describe() if rotation else None
