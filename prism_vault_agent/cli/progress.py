"""A bar on a terminal for what takes long; nothing where standard error is none, or nothing takes long."""

from __future__ import annotations

import sys
import time
from typing import Final

BEGINS_AFTER: Final = 1.0
EVERY: Final = 0.2
WIDTH: Final = 30


class Progress:
    """Shows how many of about ``expected`` are done (0: nobody knows), how fast, and how long it will take."""

    def __init__(self, what: str, expected: int) -> None:
        """Name ``what`` is counted."""
        self._what, self._expected = what, expected
        self._began = time.monotonic()
        self._next = self._began + BEGINS_AFTER if sys.stderr is not None and sys.stderr.isatty() else float("inf")
        self._shown = False

    def __call__(self, done: int) -> None:
        """Say how many are done."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next, self._shown = now + EVERY, True
        rate = done / (now - self._began)
        line = f"{done:,} {self._what}, {rate:,.0f} a second"
        if self._expected:
            part = min(done / self._expected, 1.0)
            left = max(self._expected - done, 0) / rate if rate else 0
            line = f"[{'#' * round(part * WIDTH):<{WIDTH}}] {part:4.0%}  {line}, {left:.0f} s left"
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
