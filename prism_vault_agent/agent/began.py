"""When a process began, as every agent on this boot of the host says it: by a clock that no time namespace moves."""

from __future__ import annotations

import functools
import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def began(fields: list[bytes] | list[str]) -> int:
    """Return it in clock ticks since boot, of the fields of ``/proc/PID/stat`` behind the command's name (proc_pid_stat(5))."""
    return int(fields[19]) - _moved()


@functools.cache
def _moved() -> int:
    """Return by how many ticks our time namespace moves what the kernel tells (time_namespaces(7))."""
    try:
        lines = Path("/proc/self/timens_offsets").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0  # a kernel without them
    _, seconds, nanoseconds = next(line.split() for line in lines if line.startswith("boottime"))
    return int(seconds) * TICKS + int(nanoseconds) * TICKS // 1_000_000_000
