"""Starting processes in tests so that none outlives the tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Ends the program when its parent, a thread of the test process, ends (PR_SET_PDEATHSIG is 1, see prctl(2)).
TIED_TO_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))\n"
    "if os.getppid() != int(sys.argv[1]): os._exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


def start_tied(
    arguments: Sequence[str],
    *,
    directory: Path,
    log: Path,
    more: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program in ``directory``, which is its home too, with no other environment but ``more``, printing into ``log``."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", TIED_TO_PARENT, str(os.getpid()), *arguments],
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd=directory,
            env={"HOME": str(directory), "PATH": "/usr/bin:/bin", **(more or {})},
        )


def stop_running(pid: int) -> None:
    """Stop a process with SIGSTOP and return when none of its threads runs any more: the signal alone takes a moment."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    wait_until(
        lambda: all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks.iterdir()),
    )


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
