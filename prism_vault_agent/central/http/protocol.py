"""HTTP/1.1 as uvicorn reads it, with limits that it lacks: the size of a request's head, the time until all is there or read."""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from prism_vault_agent.central.access.certificate import verified
from prism_vault_agent.central.http.problem import Problem

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from starlette.responses import Response
    from uvicorn import Server
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from prism_vault_agent.central.access.certificate import PeerCertificate

LARGEST_HEAD: Final = 32 * 1024
REQUEST_SECONDS: Final = 15.0
READING_SECONDS: Final = 20.0


def as_bytes(response: Response) -> bytes:
    """Return a response as it goes over the wire where no application serves; the connection ends behind it."""
    head = [f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}".encode()]
    head += [name + b": " + value for name, value in (*response.raw_headers, (b"connection", b"close"))]
    return b"\r\n".join(head) + b"\r\n\r\n" + bytes(response.body)


class LimitedProtocol(HttpToolsProtocol):
    """Refuses a connection too many, a head too large, a request not there in time, and a client that does not read answers."""

    def __init__(self, server: Server, most: int, refused: Callable[[], None]) -> None:
        """Serve one connection of ``server``, unless it has more than ``most``; ``refused`` is told of one too many."""
        super().__init__(server.config, server.server_state, server.lifespan.state)
        self._most = most
        self._refused = refused

    _log = structlog.get_logger("http")
    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _certificate: PeerCertificate | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn narrows it
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._certificate = verified(transport.get_extra_info("peercert"))
        if len(self.connections) > self._most:
            self._refused()
            self.refuse(Problem(503, "too_many_connections", "as many connections are open as there may be; retry"))
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        self._stop_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for a reader that is behind: what it is sent is in memory."""
        super().pause_writing()
        self._stop_unread()
        self._unread = self.loop.call_later(READING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting: it reads."""
        self._stop_unread()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Count what arrives while a head is incomplete; a body is counted where it is read."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > LARGEST_HEAD and not self.transport.is_closing():
            self.refuse(Problem(431, "head_too_large", f"at most {LARGEST_HEAD} bytes"))

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - what the parser says is told in our words
        """Answer what is not HTTP with a problem, unless an answer has begun, and close."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # there is none before the first request
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.refuse(Problem(400, "http", "not a request of HTTP/1.1; the connection is closed"))
        self.transport.close()

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem outside of any request, and close."""
        request_id = os.urandom(8).hex()
        self._log.warning("request_failed", request_id=request_id, status=problem.status, code=problem.code)
        self.transport.write(as_bytes(problem.response(request_id)))
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request, which is its connection's certificate's."""
        super().on_message_begin()
        self.scope["state"]["certificate"] = self._certificate
        self._in_head = True
        self._head_bytes = 0
        self._wait()

    def on_headers_complete(self) -> None:
        """Stop counting: the head is there."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop waiting: the request is there."""
        self._stop_waiting()
        super().on_message_complete()

    def _wait(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
