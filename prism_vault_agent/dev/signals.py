"""Signals as events that are asked for, so that Ctrl-C at any moment is met between two steps and never inside one.

While they are held, SIGINT, SIGTERM, SIGHUP and SIGCHLD are blocked (see sigwaitinfo(2)); no Python handler runs.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BETWEEN_LOOKS: Final = 0.02
SI_KERNEL: Final = 0x80


class Interrupted(Exception):
    """Somebody asked us to stop. ``number`` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Holds the signals back from ``__enter__`` to ``__exit__``. What was ignored at our start (nohup) stays ignored."""

    def __enter__(self) -> Self:
        self._stopping = {number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN}
        self._child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.before = signal.pthread_sigmask(signal.SIG_BLOCK, self._stopping | {signal.SIGCHLD})
        return self

    def __exit__(self, *_: object) -> None:
        while signal.sigtimedwait(self._stopping | {signal.SIGCHLD}, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)
        signal.signal(signal.SIGCHLD, self._child or signal.SIG_DFL)

    def check(self) -> None:
        """Raise :class:`Interrupted` where somebody asked us to stop."""
        self._pause(0)

    def until(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait until ``condition`` holds and return True, or False after ``seconds``. Raises :class:`Interrupted`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._pause(BETWEEN_LOOKS)
        return True

    def next(self, seconds: float | None = None) -> signal.struct_siginfo | None:
        """Return the next signal of those that are held (SIGCHLD too), or None after ``seconds``."""
        held = self._stopping | {signal.SIGCHLD}
        return signal.sigwaitinfo(held) if seconds is None else signal.sigtimedwait(held, seconds)

    def _pause(self, seconds: float) -> None:
        found = signal.sigtimedwait(self._stopping, seconds)
        if found is not None:
            raise Interrupted(found.si_signo)


def from_terminal(info: signal.struct_siginfo) -> bool:
    """Tell whether a signal came from the kernel, as Ctrl-C does: then every process of the foreground has it already."""
    return info.si_code == SI_KERNEL
