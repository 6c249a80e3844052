"""A TCP server that does to its clients what a real OpenBao never would, and remembers every byte they sent."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    Behaviour = Callable[[socket.socket, bytes], bool]


class FakeServer:
    """Calls ``behave`` with the connection and each request's bytes (to the blank line, or the first piece of a handshake).

    ``behave`` returns whether the connection goes on. ``received`` is all that came, ``connections`` how many there were.
    """

    def __init__(self, behave: Behaviour, *, context: ssl.SSLContext | None = None) -> None:
        self.behave = behave
        self.context = context
        self.received = b""
        self.requests: list[bytes] = []
        self.connections = 0
        self.ending = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """The base URL."""
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while not self.ending.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self.context:
                connection = stack.enter_context(self.context.wrap_socket(connection, server_side=True))
            while request := self._request(connection):
                if not self.behave(connection, request):
                    return

    def _request(self, connection: socket.socket) -> bytes:
        request = b""
        while b"\r\n\r\n" not in request and not request.startswith(b"\x16"):
            piece = connection.recv(65_536)
            self.received += piece
            request += piece
            if not piece:
                return b""
        self.requests.append(request)
        return request


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a well-formed response."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def always(response: bytes) -> Behaviour:
    """Answer every request with ``response``."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(response)
        return True

    return behave


def in_turn(*responses: bytes) -> Behaviour:
    """Answer with each of ``responses`` once, with the last of them for ever; an empty one resets the connection."""
    left = list(responses)

    def behave(connection: socket.socket, _request: bytes) -> bool:
        response = left.pop(0) if len(left) > 1 else left[0]
        if not response:
            return reset(connection)
        connection.sendall(response)
        return True

    return behave


def reset(connection: socket.socket, _request: bytes = b"") -> bool:
    """End the connection with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    return False
