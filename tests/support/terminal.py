"""A real terminal: a program runs on it as the leader of its session, and the test types and reads at the other end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECONDS = 60.0


class Terminal:
    """A program on a terminal of its own. What it has written and was not expected yet is in ``unread``."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.unread = b""
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            try:
                os.execve(command[0], list(command), dict(env))
            finally:
                os._exit(126)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.hang_up()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def type(self, keys: bytes) -> None:
        """Type, as a person does."""
        os.write(self._end, keys)

    def expect(self, text: bytes) -> bytes:
        """Read until ``text`` was written; return what was before it."""
        deadline = time.monotonic() + SECONDS
        while text not in self.unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._end], [], [], left)[0] or not self._read():
                raise AssertionError(f"{text!r} was not written, but {self.unread!r}")
        before, _, self.unread = self.unread.partition(text)
        return before

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window; the kernel sends SIGWINCH to the foreground."""
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def foreground(self) -> int:
        """Return the process group that has the terminal."""
        return os.tcgetpgrp(self._end)

    def canonical(self) -> bool:
        """Tell whether the terminal hands lines to its readers, not single keys."""
        return bool(termios.tcgetattr(self._end)[3] & termios.ICANON)

    def hang_up(self) -> None:
        """Close our end, as a connection that breaks does."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1

    def wait(self) -> int:
        """Return how the program ended, negative for a signal; what it still writes is read meanwhile."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if self._end < 0 or (select.select([self._end], [], [], 0.01)[0] and not self._read()):
                time.sleep(0.001)  # hung up: only its end is left to wait for
        raise AssertionError(f"{self.pid} has not ended")

    def _read(self) -> bool:
        try:
            part = os.read(self._end, 65536)
        except OSError:
            return False  # nobody has the other end open: EIO
        self.unread += part
        return bool(part)
