"""What the agent says of a supervised command while it runs: to start it anew, and until when what it has may be used.

It comes over a connection of its own for each release, made anew when it ends, as soon as an agent is there. While there is none
the last end that was told stands: it is waited for by a timer of the kernel's.
"""

import _socket
import posix
import select
import time

from prism_vault_agent.exec import channel, coming, kernel, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RESTART = b"restart"
ENDS = b"ends "
SOONEST = 0.05  # seconds before the first of several attempts in a row to connect; each further pause is twice as long
LATEST = 2.0
_PIECE = 4096


class Orders:
    """The orders about the present release; ``paths`` is where the agent may listen, looked at in this order.

    ``ends`` is when what that release gave comes to its end (CLOCK_BOOTTIME seconds), None where it does not. ``answered`` tells
    whether an agent is there, ``decides`` whether it knows of the release, which it shows by telling an end: then that is its.
    """

    __slots__ = (
        "answered",
        "connection",
        "decides",
        "due",
        "ends",
        "has_watched",
        "paths",
        "pause",
        "poll",
        "received",
        "release",
        "timer",
        "watched",
    )

    def __init__(self, paths: list[str], poll: select.poll) -> None:
        """Nothing is asked yet; what there is to be read shows in ``poll``."""
        self.paths = paths
        self.poll = poll
        self.connection: _socket.socket | None = None
        self.answered = self.decides = False
        self.release = b""
        self.received = b""
        self.ends: float | None = None
        self.timer = -1
        self.watched: list[int] = []
        self.has_watched = False
        self.pause = SOONEST
        self.due = 0.0

    def follow(self, release: bytes, ends: float | None = None) -> None:
        """Wait for orders about a release that ``ends`` then; from now on for none where it is empty."""
        self._close()
        self._watch(())
        self.release, self.ends, self.pause, self.due = release, ends, SOONEST, 0.0
        self._set_timer()
        self.connect()

    def left(self) -> float | None:
        """Return the seconds until the next attempt to connect, None where there is none."""
        return max(self.due - time.monotonic(), 0.0) if self.release and self.connection is None else None

    def came(self) -> bool:
        """Tell whether a SIGIO of the kernel's may say that an agent has come; then it is tried soon, not by many together.

        It may also be about one that we have found meanwhile: it is ours all the same.
        """
        self.pause, self.due = SOONEST, time.monotonic() + SOONEST * posix.urandom(1)[0] / 255
        return self.has_watched

    def over(self) -> bool:
        """Tell, once, that what the release gave has come to its end and no agent is there that knows of it."""
        if self.decides or self.ends is None or time.clock_gettime(time.CLOCK_BOOTTIME) < self.ends:
            return False
        self.ends = None
        self._set_timer()
        return True

    def connect(self) -> None:
        """Connect where it is time to. It waits for nobody: where the agent takes no connection now, it is tried again later."""
        if self.left() != 0.0:
            return
        self.due = time.monotonic() + self.pause * (0.75 + posix.urandom(1)[0] / 512)
        self.pause = min(2 * self.pause, LATEST)
        self._watch(self.paths)
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
            self._watch(())
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
        if not self.answered:
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if end and head.startswith(b"HTTP/1.1 200"):
                self.answered, self.pause, self.received = True, SOONEST, rest
        *lines, self.received = self.received.split(b"\n") if self.answered else [self.received]
        for line in lines:
            if line.startswith(ENDS):
                self.ends, self.decides = channel.boottime(line[len(ENDS) :]), True
                self._set_timer()
        if not piece or len(self.received) > _PIECE or (b"\r\n\r\n" in self.received and not self.answered):
            self._close()
        return RESTART in lines

    def _close(self) -> None:
        if self.connection is not None:
            self.poll.unregister(self.connection.fileno())
            self.connection.close()
            self.connection, self.answered, self.decides = None, False, False
            self._set_timer()

    def _watch(self, paths: "Iterable[str]") -> None:
        """Be told from now on of what comes into the directories of these paths, which may be others than before."""
        for each in self.watched:
            posix.close(each)
        self.watched = [each for each in map(coming.watch, paths) if each is not None]
        self.has_watched |= bool(self.watched)

    def _set_timer(self) -> None:
        """Be woken at the end of what is there; not while an agent decides."""
        at = None if self.decides else self.ends
        if self.timer < 0 and at is not None:
            self.timer = kernel.timer()
            self.poll.register(self.timer, select.POLLIN)
        if self.timer >= 0:
            kernel.set_timer(self.timer, at)
