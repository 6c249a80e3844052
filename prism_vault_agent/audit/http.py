"""Requests to central over HTTP/1.1, on one kept connection. Every failure is *unknown*: the same bytes are sent again.

On asyncio and h11 rather than a general HTTP client: two of these requests are on the path of every exec (docs/adr/0004).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import TYPE_CHECKING, Final, Protocol

import h11

from prism_vault_agent.audit.answers import AWAY, BATCH, LARGEST, LIMITED, Answer, Check, RateLimited, limited, results
from prism_vault_agent.errors import AuditUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.audit.replicas import Replica, Replicas

READ_SIZE: Final = 65536


class Credential(Protocol):
    """A bearer token, kept while it serves."""

    async def get(self) -> str:
        """Return the token, or nothing where our certificate does without. Raises the error that keeps it from being had."""

    def refused(self) -> None:
        """Take note that central refused it: the next one is had anew."""


class CentralHttp:
    """Central's audit API, for one request at a time. Nothing is taken from the environment, and no redirect is followed.

    A replica that cannot be reached, is late, or answers 503 is left for the next one, which is asked with the same bytes. After
    429 nothing is asked until its time is up, and then the same replica: ``RateLimited`` is raised meanwhile.
    """

    def __init__(self, replicas: Replicas, credential: Credential, seconds: float, check: Check | None = None) -> None:
        """Wait ``seconds`` at most for one answer of one replica; ``check`` looks at receipts."""
        self._replicas = replicas
        self._seconds = seconds
        self._credential = credential
        self._check = check
        self._request_id = ""  # of the last answer
        self._open: tuple[Replica, asyncio.StreamReader, asyncio.StreamWriter, h11.Connection] | None = None

    async def post(self, bodies: Sequence[bytes]) -> list[Answer]:
        """Send one batch and return central's answer to each event, or raise ``AuditUnavailable``."""
        content = json.dumps({"events": [body.decode() for body in bodies]}, ensure_ascii=False).encode()
        status, body = await self._ask("POST", BATCH, content)
        return results(status, body, bodies, self._check, self._request_id)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of central's answer, whatever it is, or raise ``AuditUnavailable``."""
        return await self._ask("GET", path)

    async def close(self) -> None:
        """Close the connection."""
        self._close()

    async def _ask(self, method: str, path: str, content: bytes = b"") -> tuple[int, bytes]:
        """Return the answer of the first replica that has one, the one in use first. Raises the last one's failure."""
        self._replicas.check()
        credential = await self._credential.get()
        others = len(self._replicas)
        while others := others - 1:
            try:
                status, body = await self._ask_one(method, path, credential, content)
            except RateLimited:
                raise
            except AuditUnavailable:
                continue
            if status != AWAY:
                return status, body
        return await self._ask_one(method, path, credential, content)

    async def _ask_one(self, method: str, path: str, credential: str, content: bytes) -> tuple[int, bytes]:
        """Return the answer of the replica in use, which is another one from then on where that was no answer."""
        replica = self._replicas.current
        try:
            status, body = await self._bounded(replica, _request(replica, method, path, credential, content), content)
        except RateLimited as error:
            self._replicas.limited(error)
            raise
        except AuditUnavailable:
            self._replicas.failed(replica)
            raise
        if status == AWAY:
            self._replicas.failed(replica)
        if status == 401:
            self._credential.refused()
            self._close()  # whose certificate may have ended
        return status, body

    async def _bounded(self, replica: Replica, request: h11.Request, content: bytes) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._exchange(replica, request, content)
        except TimeoutError:
            self._close()
            raise AuditUnavailable("central does not answer in time", mend="see prism-vault doctor") from None
        except (OSError, h11.ProtocolError) as error:
            self._close()
            raise AuditUnavailable(
                f"central cannot be reached ({_named(error, replica)})", mend="see prism-vault doctor"
            ) from None
        except BaseException:
            self._close()
            raise

    async def _exchange(self, replica: Replica, request: h11.Request, content: bytes) -> tuple[int, bytes]:
        """Send one request and return status and body; a kept connection that central has closed meanwhile is opened anew."""
        if self._open is not None and self._open[0] is not replica:
            self._close()
        kept = self._open is not None
        try:
            return await self._send(replica, request, content)
        except (ConnectionError, h11.RemoteProtocolError):
            self._close()
            if not kept:
                raise
        return await self._send(replica, request, content)

    async def _send(self, replica: Replica, request: h11.Request, content: bytes) -> tuple[int, bytes]:
        if self._open is None:
            reader, writer = await replica.connected()
            self._open = (replica, reader, writer, h11.Connection(h11.CLIENT))
        _, reader, writer, parser = self._open
        head = parser.send(request) or b""
        writer.write(head + (parser.send(h11.Data(content)) or b"") + (parser.send(h11.EndOfMessage()) or b""))
        status, headers, body = await _answer(reader, parser)
        self._request_id = headers.get("x-request-id", "")
        if parser.our_state is h11.DONE and parser.their_state is h11.DONE:
            parser.start_next_cycle()
        else:
            self._close()
        if status == LIMITED:
            raise limited(headers)
        return status, body

    def _close(self) -> None:
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open[2].close()
            self._open = None


def _named(error: Exception, replica: Replica) -> str:
    """Return what kind of error it is, and what it may mean: TLS 1.3 refuses a certificate when the request is sent already."""
    told = type(error).__name__
    if isinstance(error, ssl.SSLError) and error.reason:
        told += f" {error.reason.lower().replace('_', ' ')}"
    return (
        f"{told}: does it believe our certificate?"
        if replica.certified and not isinstance(error, ConnectionRefusedError)
        else told
    )


def _request(replica: Replica, method: str, path: str, credential: str, content: bytes) -> h11.Request:
    headers = [("Host", replica.authority), *authorization(credential)]
    if method == "POST":
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    return h11.Request(method=method, target=replica.prefix + path, headers=headers)


def authorization(credential: str) -> list[tuple[str, str]]:
    """Return the header that shows a bearer token, if there is one."""
    return [("Authorization", f"Bearer {credential}")] if credential else []


def read_headers(response: h11.Response) -> dict[str, str]:
    """Return the headers of a response by lower-case name."""
    return {bytes(name).decode("latin-1"): bytes(value).decode("latin-1") for name, value in response.headers}


async def _answer(reader: asyncio.StreamReader, parser: h11.Connection) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one response. Raises ``AuditUnavailable`` for one that is too large."""
    status, headers, body = 0, dict[str, str](), bytearray()
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(await reader.read(READ_SIZE))
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = read_headers(event)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGEST:
                raise AuditUnavailable("central's answer is too large", mend="check the URL of [central]")
        elif isinstance(event, h11.EndOfMessage):
            return status, headers, bytes(body)
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError
