"""A request's body, within a size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from prism_vault_agent.central.http.problem import Problem

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope


async def read_body(scope: Scope, receive: Receive, largest: int) -> bytes:
    """Return the request's body. Raises :class:`Problem` 413 where it is larger than ``largest`` bytes."""
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if length.isdigit() and int(length) > largest:
        raise Problem(413, "too_large", f"at most {largest} bytes")
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        body = body + part if body else part
        if len(body) > largest:
            raise Problem(413, "too_large", f"at most {largest} bytes")
        if not message.get("more_body", False):
            return body


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives a body which was read already, and then what comes behind it."""
    waiting = [body]

    async def receive_again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return receive_again
