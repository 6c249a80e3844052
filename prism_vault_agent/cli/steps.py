"""Saying on standard error how far a long run is: every step to whoever reads, and a line that rewrites itself on a terminal."""

from __future__ import annotations

import re
import sys
import time
from typing import Final, Self

PAUSE: Final = 0.2
_STEP: Final = re.compile(r"\d/\d ")


class Steps:
    """Takes lines. Those that begin with ``1/4`` are steps and are always shown; the others on a terminal, a few a second."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = 0.0
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def __call__(self, line: str) -> None:
        """Show a line."""
        if _STEP.match(line):
            self._end()
            sys.stderr.write(f"{line}\n")
        elif self._terminal and time.monotonic() - self._shown >= PAUSE:
            sys.stderr.write(f"\r\x1b[K{line}")
            self._open = True
            self._shown = time.monotonic()
        sys.stderr.flush()

    def _end(self) -> None:
        if self._open:
            sys.stderr.write("\r\x1b[K")
            self._open = False
