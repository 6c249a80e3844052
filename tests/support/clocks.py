"""Clocks that a test moves while a real agent runs: what it and its workers see of the wall clock and of CLOCK_BOOTTIME.

The host's own clocks are not touched: a library that is loaded before the C library answers clock_gettime(2) for the agent's
processes (ld.so(8), LD_PRELOAD), CLOCK_MONOTONIC as it is. So a step of the wall clock is that of an administrator or of NTP,
and one of CLOCK_BOOTTIME alone is what a suspension is; a time namespace cannot be moved while anybody is in it.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clocks.c")


class Clocks:
    """Two clocks that can be set. ``before`` are the words to put before the agent's command."""

    def __init__(self, directory: Path) -> None:
        """Build the library in a directory that is there until the end."""
        self._library, self._file = directory / "clocks.so", directory / "clocks"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", self._library, SOURCE], check=True)
        self.set()
        self.before = ("/usr/bin/env", f"LD_PRELOAD={self._library}", f"CLOCKS={self._file}")

    def set(self, *, wall: int = 0, boot: int = 0) -> None:
        """Have both differ from the host's by so many seconds from now on."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=qq", wall, boot))
