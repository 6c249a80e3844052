"""Follows central's stream of signals: server-sent events (HTML, section 9.2) over HTTP/1.1, on h11 as ``http.py``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import h11

from prism_vault_agent.audit.answers import AWAY, LIMITED, limited, problem
from prism_vault_agent.audit.http import authorization, read_headers
from prism_vault_agent.errors import AuditUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prism_vault_agent.audit.http import Credential
    from prism_vault_agent.audit.replicas import Replica, Replicas

PATH: Final = "/v1/signals"
READ_SIZE: Final = 65536
LARGEST_EVENT: Final = 256 * 1024
# Central says something every 15 seconds.
SILENCE_SECONDS: Final = 40.0


class Ahead(Exception):
    """Central has fewer signals than we have seen: ``last`` is its newest. Its log is another one, or an older one."""

    def __init__(self, last: int) -> None:
        super().__init__(last)
        self.last = last


@dataclass(frozen=True, slots=True)
class Heard:
    """What the stream said: a signal, or with empty ``data`` only how far it is."""

    id: int
    kind: str
    data: dict[str, Any]


class Events:
    """Makes events of bytes as they come."""

    def __init__(self) -> None:
        """Begin with an empty line."""
        self._rest = b""
        self._fields: dict[str, str] = {}

    def feed(self, content: bytes) -> Iterator[Heard]:
        """Yield what ``content`` completes. Raises ``AuditUnavailable`` for what is no such stream, or too large."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        if len(self._rest) > LARGEST_EVENT or sum(map(len, (*self._fields, *self._fields.values()))) > LARGEST_EVENT:
            raise AuditUnavailable("a signal of central's is too large", mend="check the URL of [central]")
        for line in lines:
            if not line:
                fields, self._fields = self._fields, {}
                yield from _heard(fields)
            elif not line.startswith(b":"):
                name, _, value = line.decode("utf-8", "replace").partition(":")
                self._fields[name] = value.removeprefix(" ")


def _heard(fields: dict[str, str]) -> Iterator[Heard]:
    if not fields.keys() & {"id", "event", "data"}:
        return
    try:
        data = json.loads(fields["data"]) if "data" in fields else {}
        # A signal without an id could be missed for ever: it is as wrong as one without sense.
        yield Heard(int(fields["id"]), fields.get("event", ""), {**data})
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AuditUnavailable("central's signal has the wrong shape", mend="check the URL of [central]") from None


class SignalStream:
    """The stream, on a connection of its own to the replica in use."""

    def __init__(self, replicas: Replicas, credential: Credential, seconds: float, installation: str = "") -> None:
        """Wait ``seconds`` at most for the beginning of an answer; say that we are ``installation``."""
        self._installation = installation
        self._replicas = replicas
        self._credential = credential
        self._seconds = seconds

    async def follow(self, position: int | None, epoch: str, heard: Callable[[Heard], None]) -> None:
        """Call ``heard`` with what comes behind ``position``, until the stream ends.

        Without a position it begins where central has first heard of ``epoch``. Raises ``AuditUnavailable``, :class:`Ahead`,
        or the error that keeps the credential from being had.
        """
        self._replicas.check()
        replica = self._replicas.current
        target = f"{PATH}?epoch={epoch}" + ("" if position is None else f"&after={position}")
        try:
            async with asyncio.timeout(self._seconds):
                credential = await self._credential.get()
                reader, writer = await replica.connected()
            try:
                status, headers, body = await self._read(
                    reader, writer, _request(replica, target, credential, self._installation), heard
                )
            finally:
                with contextlib.suppress(OSError):
                    writer.close()
        except TimeoutError:
            self._replicas.failed(replica)
            raise AuditUnavailable("central's stream of signals is silent", mend="see prism-vault doctor") from None
        except (OSError, h11.ProtocolError) as error:
            self._replicas.failed(replica)
            told = f"central's stream of signals cannot be followed ({type(error).__name__})"
            raise AuditUnavailable(told, mend="see prism-vault doctor") from None
        if status != 200:
            self._refuse(replica, status, headers, body)

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: h11.Request, heard: Callable[[Heard], None]
    ) -> tuple[int, dict[str, str], bytes]:
        """Read to the end; return status, headers, and the body of a refusal."""
        parser, events, seconds = h11.Connection(h11.CLIENT), Events(), self._seconds
        writer.write((parser.send(request) or b"") + (parser.send(h11.EndOfMessage()) or b""))
        refused, status, headers = b"", 0, dict[str, str]()
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(seconds):
                    parser.receive_data(await reader.read(READ_SIZE))
            elif isinstance(event, h11.Response):
                status, seconds = event.status_code, SILENCE_SECONDS
                headers = read_headers(event)
            elif isinstance(event, h11.Data) and status == 200:
                for each in events.feed(bytes(event.data)):
                    heard(each)
            elif isinstance(event, h11.Data):
                refused = (refused + bytes(event.data))[:READ_SIZE]
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return status, headers, refused

    def _refuse(self, replica: Replica, status: int, headers: dict[str, str], body: bytes) -> None:
        """Raise what a refusal means."""
        if status == LIMITED:
            self._replicas.limited(error := limited(headers))
            raise error
        if status == AWAY:
            self._replicas.failed(replica)
        if status == 401:
            self._credential.refused()
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if status == 409:
                raise Ahead(int(json.loads(body)["last"]))
        raise problem("central refuses its stream of signals", status, body)


def _request(replica: Replica, target: str, credential: str, installation: str) -> h11.Request:
    headers = [("Host", replica.authority), *authorization(credential), ("Accept", "text/event-stream")]
    if installation:
        headers.append(("Prism-Vault-Installation", installation))
    return h11.Request(method="GET", target=replica.prefix + target, headers=headers)
