"""Supervised commands in tests: started, looked at, and what they have started found again by a word in their environment."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.exec.fake_agent import LAUNCHER
from tests.support.child import Child
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from typing import Protocol

    class Listening(Protocol):
        """An agent that listens on ``path``."""

        path: str


PYTHON = [sys.executable, "-ISE", "-c"]
CATCHABLE = sorted(set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33})
# Tells each signal that it gets, once it has said that it will get all of them.
PROBE = (
    "import _signal\n"
    f"every = {set(CATCHABLE)!r}\n"
    "_signal.pthread_sigmask(_signal.SIG_BLOCK, every)\n"
    "print('ready', flush=True)\n"
    "while True: print(_signal.sigwaitinfo(every).si_signo, flush=True)\n"
)


def words(agent: Listening, *command: str, options: tuple[str, ...] = ("--supervise",)) -> list[str]:
    """Return the command line of a supervised command, or with other ``options`` of another one."""
    return [*LAUNCHER, "exec", "--socket", agent.path, "--scope", "web", *options, "--", *command]


def start(agent: Listening, *command: str, options: tuple[str, ...] = ("--supervise",), **more: Any) -> subprocess.Popen[bytes]:
    """Start a supervised command with a pipe for its output."""
    more.setdefault("env", {"PATH": "/usr/bin:/bin"})
    more.setdefault("stdout", subprocess.PIPE)
    return Child[bytes](words(agent, *command, options=options), **more)


def line(process: subprocess.Popen[bytes]) -> str:
    """Return the next line that a process writes."""
    assert process.stdout is not None
    return process.stdout.readline().decode().rstrip("\n")


def status_of(pid: int, name: str) -> str:
    """Return one line of ``/proc/PID/status``."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(each.partition(":")[2].strip() for each in text.splitlines() if each.startswith(f"{name}:"))


def stopped(pid: int) -> bool:
    """Tell whether a process is stopped."""
    return status_of(pid, "State").startswith("T")


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(supervisor: int) -> int:
    """Return the process id of the command below a supervisor."""
    lifeline = wait_until(lambda: next((pid for pid in children(supervisor) if children(pid)), 0))
    (command,) = wait_until(lambda: children(lifeline))
    return command


class Marked:
    """Finds the processes that have inherited a word in their environment."""

    def __init__(self) -> None:
        self.word = f"mark-{secrets.token_hex(8)}"
        self.env = {"PATH": "/usr/bin:/bin", "MARK": self.word}

    def alive(self) -> list[int]:
        """Return the marked processes that have not ended; zombies have no environment any more."""
        found, sought = [], f"MARK={self.word}\0".encode()
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    if sought in Path(f"/proc/{entry}/environ").read_bytes():
                        found.append(int(entry))
                except OSError:
                    continue
        return found

    def wait_gone(self) -> None:
        """Return when none is alive any more."""
        wait_until(lambda: not self.alive(), 10)
