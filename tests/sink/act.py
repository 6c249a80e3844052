"""One act on a place, for a test that makes its system calls fail: ``act.py DIRECTORY render NUMBER``, or ``... clear``.

What is between two calls of getpriority(2) is the act; an error ends it with status 75.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prism_vault_agent.sink.generation import clear
from tests.sink.contents import render

if __name__ == "__main__":
    place = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
    status = 0
    os.getpriority(os.PRIO_PROCESS, 0)
    try:
        if sys.argv[2] == "render":
            render(place, int(sys.argv[3]))
        else:
            clear(place, "web")
    except OSError:
        status = 75
    os.getpriority(os.PRIO_PROCESS, 0)
    os._exit(status)
