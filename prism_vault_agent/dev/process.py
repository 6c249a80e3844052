"""The processes that dev starts: each ends when dev ends, however dev ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
PARENT_GONE: Final = 125
LONGEST_LINE: Final = 300

_libc = ctypes.CDLL(None, use_errno=True)


def ours(*words: str) -> list[str]:
    """Return the command line that runs ``prism-vault`` with these words, started as we were."""
    if os.path.basename(sys.argv[0]) == "prism-vault":
        return [os.path.abspath(sys.argv[0]), *words]
    return [sys.executable, "-m", "prism_vault_agent", *words]


def environment(home: Path) -> dict[str, str]:
    """Return all that a part gets of our environment: enough to find programs, and nothing of the user's."""
    return {"HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8"}


def adopt() -> None:
    """Become the parent of what our parts leave behind, so that we can wait for its end."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def tied(mask: AbstractSet[int]) -> Callable[[], None]:
    """Return what a new process does before it executes its program: take ``mask``, and be killed when we end.

    ``PR_SET_PDEATHSIG`` survives execve(2) and means the thread that forked, which is our only one.
    """
    parent = os.getpid()

    def prepare() -> None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # which would raise here, and say so
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # we ended before the call above
            os._exit(PARENT_GONE)

    return prepare


class Part:
    """One of the stack's processes: in a session of its own, so that Ctrl-C at the terminal reaches dev alone."""

    def __init__(
        self, name: str, arguments: Sequence[str], *, log: Path, environ: Mapping[str, str], mask: AbstractSet[int]
    ) -> None:
        """Start it, with what it prints on stderr (and stdout, but for OpenBao, whose stdout tells its root token) in ``log``."""
        self.name = name
        self.log = log
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=descriptor if name != "OpenBao" else subprocess.DEVNULL,
                stderr=descriptor,
                env=environ,
                cwd=log.parent,
                umask=0o077,
                start_new_session=True,
                preexec_fn=tied(mask),  # noqa: PLW1509 - there are no threads
            )
        finally:
            os.close(descriptor)
        self._descriptor = os.pidfd_open(self._process.pid)

    def running(self) -> bool:
        """Tell whether the process has not ended."""
        return not self._ended(0)

    def printed(self) -> str:
        """Return what it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def last_line(self) -> str:
        """Return the last line that it printed."""
        lines = self.printed().split("\n")
        told = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
        return told.removeprefix("prism-vault: ")[:LONGEST_LINE]

    def stop(self, seconds: float) -> None:
        """Ask it to end, end it after ``seconds``; return when it and whatever it has left in its process group are gone."""
        if self.running() and seconds:
            self._process.terminate()
            self._ended(seconds)
        # Before it is reaped its process group's number cannot become anybody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-self._process.pid, 0)
        os.close(self._descriptor)

    def _ended(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
