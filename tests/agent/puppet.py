"""A process that connects to the agent and then does what a test tells it to, at the moment that the test chooses."""

from __future__ import annotations

import os
import signal
import socket
import warnings
from typing import TYPE_CHECKING, Self

from tests.agent.asking import connect
from tests.support.as_user import NOBODY, become

if TYPE_CHECKING:
    from collections.abc import Sequence

EXEC, CLOSE = b"x", b"c"


class Puppet:
    """Connects, sends ``request``, hands a copy of its connection over as ``connection``, and waits for a word."""

    def __init__(self, path: str, request: bytes = b"", *, uid: int | None = None, groups: Sequence[int] = ()) -> None:
        """Act as ``uid`` with ``groups``, or as ourselves."""
        self._strings, theirs = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the tests only read logs
            self.pid = os.fork()
        if self.pid == 0:
            try:
                self._strings.close()
                if uid is not None:
                    become(uid, NOBODY, groups)
                _obey(theirs, path, request)
            finally:
                os._exit(1)
        theirs.close()
        _, descriptors, _, _ = socket.recv_fds(self._strings, 1, 1)
        self.connection = socket.socket(fileno=descriptors[0])
        self.connection.settimeout(60)
        self._reaped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()
        self.connection.close()
        self._strings.close()

    def become_another_program(self) -> None:
        """Execute another program, which keeps the connection, and return when it runs."""
        self._strings.sendall(EXEC)
        assert self._strings.recv(1) == b"", "the pair is closed by execve(2)"

    def hang_up(self) -> None:
        """Close the connection, also the copy that we have, and live on."""
        self.connection.close()
        self._strings.sendall(CLOSE)
        assert self._strings.recv(1) == CLOSE

    def end(self) -> None:
        """End and be reaped."""
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._reaped = True


def _obey(strings: socket.socket, path: str, request: bytes) -> None:
    connection = connect(path)
    connection.sendall(request)
    socket.send_fds(strings, [b"."], [connection.fileno()])
    while word := strings.recv(1):
        if word == CLOSE:
            connection.close()
            strings.sendall(CLOSE)
        else:
            connection.set_inheritable(True)
            os.execv("/bin/sleep", ["sleep", "1000"])
