"""A TCP proxy in front of a server that notes each request line and each connection."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST_LINE = re.compile(rb"^(GET|LIST|POST|PUT|DELETE|HEAD) (/\S+) HTTP/1\.1\r\n", re.MULTILINE)


class CountingProxy:
    """Forwards to ``port`` of 127.0.0.1. ``lines`` are the requests so far, ``connections`` how many there were."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._seen: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def address(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections were made."""
        return len(self._seen)

    @property
    def lines(self) -> list[str]:
        """``METHOD /path`` of every request, connection by connection."""
        return [f"{match[1].decode()} {match[2].decode()}" for seen in self._seen for match in REQUEST_LINE.finditer(seen)]

    def cut(self) -> None:
        """End every connection that is open now."""
        for connected in self._sockets:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(10)
        self.cut()
        for thread in self._threads[1:]:
            thread.join(10)
        for connected in self._sockets:
            connected.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for connected in (client, server):
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            seen = bytearray()
            self._seen.append(seen)
            self._sockets += [client, server]
            self._start(self._forward, client, server, seen)
            self._start(self._forward, server, client, bytearray())

    def _forward(self, source: socket.socket, target: socket.socket, seen: bytearray) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                seen += piece
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
