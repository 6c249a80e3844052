"""An agent that releases one value after the other, and orders what it releases to be started anew."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Self

from tests.exec.fake_agent import FakeAgent, answer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-prism-vault-orders\r\n\r\n"


class OrderingAgent:
    """Answers as ``replies`` say, then with numbered values of ``DB``. ``waiting`` are the supervisors, by release.

    What it releases ``ends`` then (CLOCK_BOOTTIME seconds).
    """

    def __init__(
        self, directory: Path, *replies: bytes, grace: float = 10, first: int = 1, ends: float | None = None, orders: bool = True
    ) -> None:
        self.fake = FakeAgent(directory, self._reply)
        self.path = self.fake.path
        self.replies = list(replies)
        self.grace = grace
        self.ends = ends
        self.orders = orders
        self.starts = first - 1
        self.after: list[bytes] = []
        self.waiting: dict[str, socket.socket] = {}
        self.asked: list[str] = []

    def __enter__(self) -> Self:
        self.fake.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.fake.__exit__(*error)
        for connection in self.waiting.values():
            connection.close()

    def tell(self, start: int, line: bytes) -> None:
        """Tell the supervisor of a start a line, once it waits for that."""
        wait_until(lambda: f"pva_{start}" in self.waiting)
        self.waiting[f"pva_{start}"].sendall(line + b"\n")

    def order(self, start: int) -> None:
        """Order the command of a start, counted from 1, to be started anew, once its supervisor waits for that."""
        self.tell(start, b"restart")

    def _reply(self, connection: socket.socket) -> None:
        head, _, body = self.fake.requests[-1].partition(b"\r\n\r\n")
        if head.startswith(b"POST /v1/orders "):
            self.asked.append(body.decode())
            with contextlib.suppress(OSError):
                connection.sendall(HEAD + (b"" if self.ends is None else b"ends %d\n" % (self.ends * 1000)))
            self.waiting[body.decode()] = connection.dup()
            return
        self.after += [value for name, value in self.fake.fields() if name == b"after"]
        if self.replies:
            connection.sendall(self.replies.pop(0))
            return
        self.starts += 1
        more = {
            "X-Prism-Vault-Grace-Ms": str(int(self.grace * 1000)),
            "X-Prism-Vault-Orders": str(int(self.orders)),
            "X-Prism-Vault-Ends-Ms": "" if self.ends is None else str(int(self.ends * 1000)),
            "X-Prism-Vault-Audit-Id": f"pva_{self.starts}",
        }
        connection.sendall(answer({b"DB": b"%d" % self.starts}, more=more))
