"""HTTP/1.1 on the agent's socket: one request a connection, read with a deadline and a size, answered once (h11)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import h11

if TYPE_CHECKING:
    import socket

    from prism_vault_agent.errors import PrismVaultError

LARGEST_HEAD: Final = 16 * 1024
LARGEST_BODY: Final = 64 * 1024
READ_SECONDS: Final = 2.0
HTTP_STATUS: Final = {64: 400, 65: 503, 66: 404, 75: 503, 77: 403}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One whole request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class BadRequest(Exception):
    """A request that is not answered as it asks; ``status`` is the HTTP status, the text says why."""

    def __init__(self, status: int, why: str, **headers: str) -> None:
        """Keep the status, the reason and the headers that go with it."""
        super().__init__(why)
        self.status = status
        self.headers = headers


async def read_request(connection: socket.socket) -> HttpRequest | None:
    """Return the request, or None when the peer closes without one. Raises ``BadRequest`` when it is late, large or malformed."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await _read(connection, parser)
    except TimeoutError:
        raise BadRequest(408, "the request did not come in time") from None
    except h11.RemoteProtocolError as error:
        raise BadRequest(error.error_status_hint, "this is not HTTP/1.1, or its head is too large") from None
    except OSError:
        return None


async def _read(connection: socket.socket, parser: h11.Connection) -> HttpRequest | None:
    loop = asyncio.get_running_loop()
    head: h11.Request | None = None
    body = bytearray()
    received = 0
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            part = await loop.sock_recv(connection, 65536)
            if not part and head is None and not parser.trailing_data[0]:
                return None
            received += len(part)
            parser.receive_data(part)
        elif isinstance(event, h11.Request):
            head = event
            if received - len(parser.trailing_data[0]) > LARGEST_HEAD:
                raise BadRequest(431, f"the head is larger than {LARGEST_HEAD} bytes")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGEST_BODY:
                raise BadRequest(413, f"the body is larger than {LARGEST_BODY} bytes")
        else:
            break
    if head is None:
        return None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return HttpRequest(head.method.decode("latin-1"), head.target.decode("latin-1"), headers, bytes(body))


def head(status: int, headers: dict[str, str]) -> str:
    """Return the head of an answer up to, not including, Content-Length and the blank line."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines) + "\r\n"


def whole(status: int, body: bytes, headers: dict[str, str]) -> bytes:
    """Return one answer."""
    return head(status, headers).encode("latin-1") + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def status_of(error: PrismVaultError) -> int:
    """Return the HTTP status that goes with an error."""
    return HTTP_STATUS.get(error.exit_status, 500)


def refusal(error: PrismVaultError) -> bytes:
    """Return the answer that tells an error to whoever asks with ``exec``."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Prism-Vault-Exit": str(error.exit_status)}
    return whole(status_of(error), error.line().encode() + b"\n", headers)


async def answer(connection: socket.socket, status: int, body: bytes, headers: dict[str, str]) -> None:
    """Send one answer."""
    await send(connection, whole(status, body, headers))


async def send(connection: socket.socket, message: bytes) -> None:
    """Send one whole answer; a peer that has gone is not our concern."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            await asyncio.get_running_loop().sock_sendall(connection, message)
    except (OSError, TimeoutError):
        return


async def answer_json(connection: socket.socket, status: int, body: Any) -> None:
    """Send one JSON answer."""
    await answer(connection, status, json.dumps(body).encode() + b"\n", {"Content-Type": "application/json"})
