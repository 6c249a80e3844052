"""``GET /v1/signals``: the stream of what hosts are told, as server-sent events (HTML, section 9.2). Plain ASGI.

Each stream is one position and one task that sleeps. A stream is told at once what is behind its position, from memory or from
the rows; where its reader is slow, the connection takes no more and the position stays (see ``protocol.py``).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qsl

from prism_vault_agent.central.access.identity import Unauthenticated
from prism_vault_agent.central.access.issuer import IssuerUnavailable
from prism_vault_agent.central.access.permission import Refused
from prism_vault_agent.central.http.problem import Problem
from prism_vault_agent.central.log.follower import Follower
from prism_vault_agent.central.log.holding import Refusal, Sender
from prism_vault_agent.central.log.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.log.feed import Feed, Signal
    from prism_vault_agent.central.log.names import Names

    Admit = Callable[[Scope], Awaitable[Identity | None]]

PATH: Final = "/v1/signals"
# The header in which an agent says which installation it is. It identifies nobody: the credential does.
INSTALLATION: Final = b"prism-vault-installation"
HEARTBEAT_SECONDS: Final = 15.0
# How long a credential is believed that held when it was last looked at.
BELIEVED_SECONDS: Final = 60.0
TIME_IS_UP: Final = "token_expired"
_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_EPOCH: Final = re.compile(r"[0-9a-f]{32}")
_HEADERS: Final = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class SignalStreams:
    """The route, over one feed."""

    def __init__(self, feed: Feed, heartbeat: float = HEARTBEAT_SECONDS, names: Names | None = None) -> None:
        """Show what ``feed`` knows; where it is silent, say so every ``heartbeat`` seconds. ``names`` keeps hosts' names."""
        self._feed = feed
        self._names = names
        self._heartbeat = heartbeat

    def end(self) -> None:
        """End every stream, and begin no other."""
        self._feed.end()

    async def serve(self, scope: Scope, receive: Receive, send: Send, admit: Admit) -> None:
        """Stream to whom the request is from, until they leave, or ``admit`` no longer lets them in, or the feed ends."""
        identity: Identity = scope["state"]["identity"]
        position = await self._position(scope, identity)
        follower = Follower(identity, _sender(scope, identity) if self._names else None)
        self._feed.join(follower)
        if self._names:
            self._names.join(follower)
        leaving = asyncio.create_task(_wait_until_gone(receive, follower))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await _send(send, b"retry: 1000\nid: %d\n\n" % position)
            await self._follow(scope, send, admit, follower, position)
        finally:
            self._feed.leave(follower)
            leaving.cancel()
            if self._names:
                self._names.leave(follower, ended=self._feed.ended)
        await send({"type": "http.response.body", "body": b""})

    async def _follow(self, scope: Scope, send: Send, admit: Admit, follower: Follower, position: int) -> None:
        told, believed = position, time.monotonic()
        standing: Refusal | Literal[False] | None = False
        while not (follower.gone or self._feed.ended):
            try:
                signals = self._feed.behind(position)
                if signals is None:
                    signals = await self._feed.read(position)
            except StorageError:
                return  # the reader comes again, with its position
            if follower.stands and standing != follower.refusal:
                standing = follower.refusal
                await _send(send, _standing(position, standing))
            if signals:
                position = signals[-1].id
                events = b"".join(signal.event for signal in signals if signal.concerns(follower.identity))
                if events:
                    await _send(send, events)
                    told = position
            elif not await follower.wait(self._heartbeat):
                await _send(send, b":\nid: %d\n\n" % position if position > told else b":\n\n")
                told = position
            if time.monotonic() - believed > BELIEVED_SECONDS or _may_be_about_credentials(signals):
                if (identity := await _again(scope, admit)) is None:
                    return
                follower.identity, believed = identity, time.monotonic()

    async def _position(self, scope: Scope, identity: Identity) -> int:
        """Return the id behind which to begin. Raises :class:`Problem` 400, and 409 for one that does not exist yet."""
        asked = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        header = dict(scope["headers"]).get(b"last-event-id", b"").decode("latin-1")
        after, epoch = header or asked.pop("after", ""), asked.pop("epoch", "")
        asked.pop("after", None)
        if asked or (after and not _is_id(after)) or (epoch and not _EPOCH.fullmatch(epoch)):
            raise Problem(400, "query", "after is a number, epoch is 32 hex digits, and there is nothing else to ask")
        if after:
            last = await self._feed.last()
            if int(after) > last and int(after) > (last := await self._feed.newest()):
                raise Problem(409, "ahead", "there is no such signal yet: is this another log?", more={"last": last})
            return int(after)
        start = await self._feed.start_of(identity.host, bytes.fromhex(epoch)) if epoch and identity.host else None
        return await self._feed.newest() if start is None else start


def _sender(scope: Scope, identity: Identity) -> Sender | None:
    """Return who follows, where it says which installation of a host's agent it is."""
    installation = dict(scope["headers"]).get(INSTALLATION, b"").decode("latin-1")
    epoch = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("epoch", "")
    known = identity.host and _EPOCH.fullmatch(installation) and _EPOCH.fullmatch(epoch)
    return Sender(identity.host, epoch, installation) if known else None


def _standing(position: int, refusal: Refusal | None) -> bytes:
    """Return the event that tells an agent whether it has its host's name."""
    told = {"reason": refusal.reason, "message": refusal.message} if refusal else {}
    return b"id: %d\nevent: name\ndata: %b\n\n" % (position, json.dumps(told).encode())


def _is_id(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text)) and int(text) < 2**63


async def _wait_until_gone(receive: Receive, follower: Follower) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    follower.leave()


def _may_be_about_credentials(signals: list[Signal]) -> bool:
    return any(signal.kind == "policy" for signal in signals)


async def _again(scope: Scope, admit: Admit) -> Identity | None:
    """Return who the stream is for now, or None where the credential was taken away.

    A token whose time is up cannot open a stream, but keeps one: a host whose provider is sealed gets no new token, and must
    still be told to end what it runs.
    """
    known: Identity = scope["state"]["identity"]
    try:
        return await admit(scope)
    except IssuerUnavailable:
        return known
    except Unauthenticated as error:
        return known if error.reason == TIME_IS_UP else None
    except (Refused, Problem):
        return None


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
