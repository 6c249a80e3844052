"""The connection over which the agent orders to start a supervised command anew: one for each release, made anew when it ends."""

import _socket
import posix
import select
import time

from prism_vault_agent.exec import wire

RESTART = b"restart"
SOONEST = 0.05  # seconds before the first of several attempts in a row to connect; each further pause is twice as long
LATEST = 2.0
_PIECE = 4096


class Orders:
    """The orders about the present release; ``paths`` is where the agent may listen, looked at in this order."""

    __slots__ = ("connection", "due", "paths", "pause", "poll", "received", "release")

    def __init__(self, paths: list[str], poll: select.poll) -> None:
        """Nothing is asked yet; what there is to be read shows in ``poll``."""
        self.paths = paths
        self.poll = poll
        self.connection: _socket.socket | None = None
        self.release = b""
        self.received = b""
        self.pause = SOONEST
        self.due = 0.0

    def follow(self, release: bytes) -> None:
        """Wait for orders about a release from now on, none where it is empty."""
        self._close()
        self.release, self.pause, self.due = release, SOONEST, 0.0
        self.connect()

    def left(self) -> float | None:
        """Return the seconds until the next attempt to connect, None where there is none."""
        return max(self.due - time.monotonic(), 0.0) if self.release and self.connection is None else None

    def connect(self) -> None:
        """Connect where it is time to. It waits for nobody: where the agent takes no connection now, it is tried again later."""
        if self.left() != 0.0:
            return
        self.due = time.monotonic() + self.pause * (0.75 + posix.urandom(1)[0] / 512)
        self.pause = min(2 * self.pause, LATEST)
        for path in self.paths:
            connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                connection.connect(path)
                connection.send(wire.request(b"/v1/orders", self.release), _socket.MSG_NOSIGNAL)
            except OSError:
                connection.close()
                continue
            self.connection, self.received = connection, b""
            self.poll.register(connection.fileno(), select.POLLIN)
            return

    def ordered(self, descriptor: int) -> bool:
        """Read what has come on ``descriptor``, which is ready; tell whether the present release is to be started anew."""
        connection = self.connection
        if connection is None or connection.fileno() != descriptor:
            return False
        try:
            piece = connection.recv(_PIECE)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        self.received += piece
        head, end, orders = self.received.partition(b"\r\n\r\n")
        if not piece or len(self.received) > _PIECE or (end and not head.startswith(b"HTTP/1.1 200")):
            self._close()
            return False
        if end:
            self.pause = SOONEST
        return bool(end) and RESTART in orders.split(b"\n")[:-1]

    def _close(self) -> None:
        if self.connection is not None:
            self.poll.unregister(self.connection.fileno())
            self.connection.close()
            self.connection = None
