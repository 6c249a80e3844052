"""The outermost layer of the HTTP door: gives each request an id, limits its body, turns every error into a problem."""

from __future__ import annotations

import asyncio
import os
import traceback
from typing import TYPE_CHECKING, Final

import structlog
from starlette.requests import ClientDisconnect, Request

from prism_vault_agent.central.identity import Unauthenticated
from prism_vault_agent.central.issuer import IssuerUnavailable
from prism_vault_agent.central.problem import Problem
from prism_vault_agent.central.store import StorageError
from prism_vault_agent.central.writer import Busy

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS: Final = 10.0
REQUEST_ID: Final = b"x-request-id"


class Door:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp) -> None:
        """Pass requests to ``app``."""
        self._app = app
        self._log = structlog.get_logger("http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; nothing that goes wrong in it reaches the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = os.urandom(8).hex()
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the last resort must not let a traceback with values out
            problem = as_problem(error)
            if problem.status >= 500:
                self._log.error(
                    "request_failed",
                    request_id=request_id,
                    path=scope["path"],
                    code=problem.code,
                    error=type(error).__name__,
                    where=_where(error) if problem.code == "internal" else None,
                )
            if not started:
                await problem.response(request_id)(scope, receive, send_with_id)


def as_problem(error: Exception) -> Problem:
    """Return the problem that tells a caller of ``error``."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Unauthenticated):
        return Problem(401, error.reason, "the credential does not hold; get a new one")
    if isinstance(error, IssuerUnavailable):
        return Problem(503, "issuer_unavailable", "the issuer's keys cannot be had; retry")
    if isinstance(error, StorageError):
        return Problem(503, "storage", "the log cannot be written or read now; nothing was acknowledged; retry")
    if isinstance(error, Busy):
        return Problem(503, "busy", "more events wait than the disk takes; retry")
    return Problem(500, "internal", "a defect of ours; nothing was acknowledged")


async def body_of(request: Request, largest: int) -> bytes:
    """Return the request's body. Raises :class:`Problem` 413 where it is larger, 408 where it does not arrive in time."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > largest:
        raise Problem(413, "too_large", f"at most {largest} bytes")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > largest:
                    raise Problem(413, "too_large", f"at most {largest} bytes")
                parts.append(part)
    except TimeoutError:
        raise Problem(408, "too_slow", f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
    return b"".join(parts)


def _where(error: BaseException) -> list[str]:
    """Return the places that an error passed, without its message and without any value."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
