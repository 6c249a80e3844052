"""An HTTP proxy that decides for each request: pass it on, or fail it, before or after the server has acted on it."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Decide = Callable[["Seen"], "Fault | None"]

Way = Literal["answer", "hang", "reset", "drip"]


@dataclass(frozen=True)
class Seen:
    """One request that came by."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def kinds(self) -> list[str]:
        """The kinds of the audit events in it, where it is a batch of them."""
        return [str(event["kind"]) for event in self.events]

    @property
    def events(self) -> list[dict[str, object]]:
        """The audit events in it, where it is a batch of them."""
        if not self.path.endswith("/events:batch"):
            return []
        return [json.loads(text) for text in json.loads(self.body)["events"]]


@dataclass(frozen=True)
class Fault:
    """How a request goes wrong. ``forwarded`` tells whether the server acts on it first; ``until`` holds the request back.

    ``hang`` never answers, ``reset`` ends the connection with a RST, ``drip`` gives the answer byte by byte, ``answer`` gives
    one of ours: the bytes ``raw``, else one with ``status`` and ``body``, else the server's own, its body as ``change`` makes it.
    """

    way: Way
    forwarded: bool = False
    status: int = 0
    body: bytes = b"{}"
    raw: bytes = b""
    change: Callable[[bytes], bytes] | None = None
    until: threading.Event | None = None


@dataclass
class FaultProxy:
    """Forwards HTTP/1.1 to ``port`` of 127.0.0.1, unless ``decide`` has a fault for the request. ``seen`` is all that came.

    With ``ca_file`` it speaks TLS with the server, so that a server which needs TLS can be reached without.
    """

    port: int
    decide: Decide = lambda _: None
    seen: list[Seen] = field(default_factory=list)
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        self._ending = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for each in (self._listener, *list(self._open)):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def count(self, condition: Callable[[Seen], bool]) -> int:
        """Return how many requests so far fulfil ``condition``."""
        return sum(map(condition, self.seen))

    @contextlib.contextmanager
    def failing(self, decide: Decide) -> Iterator[None]:
        """Let ``decide`` decide for a while."""
        before, self.decide = self.decide, decide
        try:
            yield
        finally:
            self.decide = before

    def cut(self) -> None:
        """Break every connection that is open."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self._open.add(connection)
        with contextlib.suppress(OSError, http.client.HTTPException), connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                method, path, _ = line.decode().split()
                headers = {name.lower(): value for name, value in _headers(stream)}
                seen = Seen(method, path, headers, stream.read(int(headers.get("content-length", 0))))
                self.seen.append(seen)
                if not self._answer(connection, seen):
                    break
        self._open.discard(connection)

    def _answer(self, connection: socket.socket, seen: Seen) -> bool:
        """Answer one request as decided; tell whether the connection goes on."""
        fault = self.decide(seen) or Fault("answer", forwarded=True)
        while fault.until and not self._ending.is_set() and not fault.until.wait(0.1):
            pass
        if seen.path.startswith("/v1/signals") and fault == Fault("answer", forwarded=True):
            self._stream(connection, seen)
            return False
        answer = self._forward(seen, fault.change) if fault.forwarded else b""
        if fault.way == "hang":
            return bool(connection.recv(1))  # until the other side or the test has had enough
        if fault.way == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if fault.raw:
            answer = fault.raw
        elif fault.status:
            answer = response(fault.status, fault.body)
        if fault.way == "drip":
            for byte in answer:
                connection.sendall(bytes([byte]))
                if self._ending.wait(0.1):
                    return False
            return True
        connection.sendall(answer)
        return b"\r\nConnection: close\r\n" not in answer[:1000]

    def _stream(self, connection: socket.socket, seen: Seen) -> None:
        """Pass on an answer that has no end, as it comes, until either side goes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as server:
            self._open.add(server)
            headers = "".join(f"{name}: {value}\r\n" for name, value in seen.headers.items())
            server.sendall(f"{seen.method} {seen.path} HTTP/1.1\r\n{headers}\r\n".encode())
            while server in select.select([server, connection], [], [])[0] and (content := server.recv(65536)):
                connection.sendall(content)
            self._open.discard(server)

    def _forward(self, seen: Seen, change: Callable[[bytes], bytes] | None) -> bytes:
        """Have the server answer and return its response, its body changed."""
        if self.ca_file:
            context = ssl.create_default_context(cafile=str(self.ca_file))
            server: http.client.HTTPConnection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)
        else:
            server = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            server.request(seen.method, seen.path, seen.body or None, seen.headers | {"connection": "close"})
            answer = server.getresponse()
            body = answer.read()
            kind = answer.getheader("Content-Type", "application/json")
            return response(answer.status, change(body) if change else body, kind)
        finally:
            server.close()


def response(status: int, body: bytes, kind: str = "application/json") -> bytes:
    """Return a well-formed response."""
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
    return (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def times(count: int, fault: Fault, condition: Callable[[Seen], bool]) -> Decide:
    """Fail the first ``count`` requests that fulfil ``condition``."""
    left = [fault] * count

    def decide(seen: Seen) -> Fault | None:
        return left.pop() if left and condition(seen) else None

    return decide


def always(fault: Fault, condition: Callable[[Seen], bool] = lambda _: True) -> Decide:
    """Fail every request that fulfils ``condition``."""
    return lambda seen: fault if condition(seen) else None


def with_kind(kind: str) -> Callable[[Seen], bool]:
    """Select the batches that hold an audit event of this kind."""
    return lambda seen: kind in seen.kinds


def _headers(stream: object) -> Iterator[tuple[str, str]]:
    for line in iter(stream.readline, b"\r\n"):  # type: ignore[attr-defined]  # a buffered socket reader
        name, _, value = line.decode("latin-1").partition(":")
        yield name.strip(), value.strip()
