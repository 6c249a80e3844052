"""Time that passes only when it is told to: the clocks of this process, and an event loop that jumps from timer to timer."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ready = list[tuple[selectors.SelectorKey, int]]

# 2024-01-01: times that the provider notes are in the past for whoever looks at the real clock.
BEGIN: Final = 1_704_067_200.0


class Quiet(Exception):
    """The time that was to pass has passed, and nothing is left to do at this moment."""


class Crash(Exception):
    """The agent is to be dropped here and now."""


class Clock:
    """Seconds of CLOCK_MONOTONIC, CLOCK_BOOTTIME and the wall clock; a suspended host has the first of them stand still."""

    def __init__(self) -> None:
        self.monotonic = 1_000.0
        self.boot = 1_000.0
        self.wall = BEGIN

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.monotonic += seconds
        self.suspend(seconds)

    def suspend(self, seconds: float) -> None:
        """Let the time pass that a host is suspended for."""
        self.boot += seconds
        self.wall += seconds

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Have the functions of ``time`` tell this time; what Hypothesis and pytest measure with is not among them."""

        def of(which: int) -> float:
            return {time.CLOCK_BOOTTIME: self.boot, time.CLOCK_MONOTONIC: self.monotonic}.get(which, self.wall)

        with (
            patch.object(time, "monotonic", lambda: self.monotonic),
            patch.object(time, "time", lambda: self.wall),
            patch.object(time, "time_ns", lambda: int(self.wall * 1e9)),
            patch.object(time, "clock_gettime", of),
            patch.object(time, "clock_gettime_ns", lambda which: int(of(which) * 1e9)),
        ):
            yield


class _Selector(selectors.DefaultSelector):
    """Waits for nobody: where no descriptor is ready, the clock is put to the next timer, up to ``until``.

    ``each`` is called before every turn of the loop. After ``fuse`` turns it raises :class:`Crash`.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.until = 0.0
        self.fuse: int | None = None
        self.each: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> Ready:
        """Return what is ready; raise :class:`Quiet` where nothing is and no timer is due before ``until``."""
        self.each()
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Crash
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        left = self.until - self.clock.monotonic
        if timeout is None or timeout > left:
            self.clock.pass_(max(0.0, left))
            raise Quiet
        self.clock.pass_(timeout)
        return ready


class Loop(asyncio.SelectorEventLoop):
    """The event loop of one agent. What it has threads do is done between two of its turns."""

    def __init__(self, clock: Clock, each: Callable[[], None]) -> None:
        self.turns = _Selector(clock)
        self.turns.each = each
        super().__init__(self.turns)

    def time(self) -> float:
        """Return CLOCK_MONOTONIC, as it is simulated."""
        return self.turns.clock.monotonic

    def run_in_executor(  # type: ignore[override]  # less exact than the base class's, whose type variables are its own
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Have ``func`` called at a turn of its own: a crash may come before, or before anybody knows of its result."""
        future = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        self.call_soon(work)
        return future

    def run_for(self, seconds: float) -> None:
        """Let time pass, and everything happen that happens in it. Raises :class:`Crash` where the fuse has burnt down."""
        self.turns.until = self.turns.clock.monotonic + seconds
        with contextlib.suppress(Quiet):
            self.run_forever()
