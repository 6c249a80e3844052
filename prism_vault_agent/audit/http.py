"""Batches of events to central over HTTP/1.1, on one kept connection. Every failure is *unknown*: the batch is sent again.

On asyncio and h11 rather than a general HTTP client: two of these requests are on the path of every exec (docs/adr/0004).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

import h11

from prism_vault_agent.audit.answers import BATCH, LARGEST, Answer, results
from prism_vault_agent.errors import AuditUnavailable
from prism_vault_agent.vault.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.config.settings import CentralSettings

READ_SIZE: Final = 65536


class Credential(Protocol):
    """A bearer token, kept while it serves."""

    async def get(self) -> str:
        """Return the token. Raises the typed error that keeps it from being had."""

    def refused(self) -> None:
        """Take note that central refused it: the next one is had anew."""


class CentralHttp:
    """Central's audit API, for one request at a time. Nothing is taken from the environment, and no redirect is followed."""

    def __init__(self, settings: CentralSettings, credential: Credential) -> None:
        """Speak to central at ``settings.url``. Raises ``ConfigError`` for unusable TLS files."""
        self._url = urlsplit(settings.url)
        self._seconds = settings.timeout
        self._context = tls_context(settings.url, settings.tls)
        self._credential = credential
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter, h11.Connection] | None = None

    async def post(self, bodies: Sequence[bytes]) -> list[Answer]:
        """Send one batch and return central's answer to each event, or raise ``AuditUnavailable``."""
        credential = await self._credential.get()
        content = json.dumps({"events": [body.decode() for body in bodies]}, ensure_ascii=False).encode()
        try:
            async with asyncio.timeout(self._seconds):
                status, answer = await self._exchange(credential, content)
        except TimeoutError:
            self._close()
            raise AuditUnavailable("central does not answer in time", mend="see prism-vault doctor") from None
        except (OSError, h11.ProtocolError) as error:
            self._close()
            raise AuditUnavailable(f"central cannot be reached ({type(error).__name__})", mend="see prism-vault doctor") from None
        except BaseException:
            self._close()
            raise
        if status == 401:
            self._credential.refused()
        return results(status, answer, len(bodies))

    async def close(self) -> None:
        """Close the connection."""
        self._close()

    async def _exchange(self, credential: str, content: bytes) -> tuple[int, bytes]:
        """Send one request and return status and body; a kept connection that central has closed meanwhile is opened anew."""
        kept = self._open is not None
        try:
            return await self._request(credential, content)
        except (ConnectionError, h11.RemoteProtocolError):
            self._close()
            if not kept:
                raise
        return await self._request(credential, content)

    async def _request(self, credential: str, content: bytes) -> tuple[int, bytes]:
        if self._open is None:
            port = self._url.port or (443 if self._context else 80)
            reader, writer = await asyncio.open_connection(self._url.hostname, port, ssl=self._context)
            self._open = (reader, writer, h11.Connection(h11.CLIENT))
        reader, writer, parser = self._open
        headers = [
            ("Host", self._url.netloc),
            ("Authorization", f"Bearer {credential}"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
        ]
        request = h11.Request(method="POST", target=self._url.path.rstrip("/") + BATCH, headers=headers)
        writer.write(
            (parser.send(request) or b"") + (parser.send(h11.Data(content)) or b"") + (parser.send(h11.EndOfMessage()) or b"")
        )
        status, body = 0, bytearray()
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await reader.read(READ_SIZE))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > LARGEST:
                    raise AuditUnavailable("central's answer is too large", mend="check the URL of [central]")
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError
        if parser.our_state is h11.DONE and parser.their_state is h11.DONE:
            parser.start_next_cycle()
        else:
            self._close()
        return status, bytes(body)

    def _close(self) -> None:
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open[1].close()
            self._open = None
