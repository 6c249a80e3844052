"""The outermost layer of the HTTP door: who calls and whether they may, an id for each request, a problem for every error.

A route that is not in ``access/permission.py`` is not served, so none can be forgotten there. What a route finds in
``scope["state"]["identity"]`` is who calls (``request.state.identity`` in FastAPI's routes); ``certificate`` beside it is
what TLS has verified, if anything.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from starlette.requests import ClientDisconnect

from prism_vault_agent.central.access.identity import Unauthenticated
from prism_vault_agent.central.access.issuer import IssuerUnavailable
from prism_vault_agent.central.access.permission import OPEN, Refused, Route, permit
from prism_vault_agent.central.access.permission import route as known
from prism_vault_agent.central.access.rate import RateLimited
from prism_vault_agent.central.http.body import read_body, replayed
from prism_vault_agent.central.http.problem import Problem
from prism_vault_agent.central.http.signals import PATH as SIGNALS
from prism_vault_agent.central.log.store import StorageError
from prism_vault_agent.central.log.writer import Busy
from prism_vault_agent.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from prism_vault_agent.central.access.identity import Credentials, Identity
    from prism_vault_agent.central.access.refusals import Refusals
    from prism_vault_agent.central.http.appending import AppendRoutes
    from prism_vault_agent.central.http.signals import SignalStreams
    from prism_vault_agent.central.metrics import Metrics

REQUEST_ID: Final = b"x-request-id"
# Headers in which proxies tell each other who calls. We believe credentials, and nobody behind us shall believe these.
CLAIMS: Final = b"x-prism-"
LARGEST_BODY: Final = 64 * 1024  # of a request that appends nothing
FORWARDED: Final = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"})
LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})


class Door:
    """An ASGI application: appends go straight to their routes, since each exec waits for two of them; the rest to ``app``."""

    def __init__(
        self,
        app: ASGIApp,
        appends: AppendRoutes,
        streams: SignalStreams,
        credentials: Credentials,
        metrics: Metrics,
        *,
        refusals: Refusals,
        waited_for: Sequence[Callable[[], None]],
    ) -> None:
        """Pass requests of whom ``credentials`` knows to ``appends``, ``streams`` and ``app``; count them in ``metrics``.

        ``waited_for`` end what is open until there is news.
        """
        self._app = app
        self._appends = appends
        self._streams = streams
        self._waited_for = waited_for
        self._credentials = credentials
        self._refusals = refusals
        self.metrics = metrics
        self._log = structlog.get_logger("http")

    def end(self) -> None:
        """End what waits for news, now and from now on: it may have no end of its own."""
        for end in self._waited_for:
            end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; nothing that goes wrong in it reaches the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = os.urandom(8).hex()
        route = known(scope["path"])
        began = time.perf_counter()
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self.metrics.answered(_named(scope["method"], route), message["status"], time.perf_counter() - began)
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id.encode())]
            await send(message)

        try:
            scope["headers"] = [header for header in scope["headers"] if not header[0].startswith(CLAIMS)]
            state = scope.setdefault("state", {})
            state["request_id"] = request_id
            state["identity"] = await self._enter(scope, route)
            if scope["method"] == "POST" and (appends := self._appends.route(scope["path"])) is not None:
                await appends(scope, receive, send_with_id, request_id)
            elif scope["path"] == SIGNALS:
                await self._streams.serve(scope, receive, send_with_id, partial(self._admit, route=route))
            elif scope["method"] in ("GET", "HEAD"):
                await self._app(scope, receive, send_with_id)
            else:
                body = await read_body(scope, receive, LARGEST_BODY)
                await self._app(scope, replayed(body, receive), send_with_id)
        except ClientDisconnect:
            return
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the last resort must not let a traceback with values out
            problem = self._told(error, request_id, scope["path"])
            if not started:
                await problem.response(request_id)(scope, receive, send_with_id)

    async def _enter(self, scope: Scope, route: Route) -> Identity | None:
        """Return who calls, whose share the request is taken from."""
        identity = await self._admit(scope, route)
        if identity is not None:
            self._credentials.rates.take(identity, 1)
        return identity

    async def _admit(self, scope: Scope, route: Route) -> Identity | None:
        """Return who calls, or None where anyone may. Raises what keeps the caller from the route."""
        methods = route.methods
        if not methods:
            raise Problem(404, "no_such_route", "see /openapi.json")
        if scope["method"] not in methods:
            raise Problem(405, "method", "see /openapi.json", headers={"Allow": ", ".join(sorted(methods))})
        need = methods[scope["method"]]
        if need is OPEN or (need.loopback and _of_this_machine(scope)):
            return None
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) > 1:
            raise Problem(400, "two_credentials", "one Authorization header, please")
        identity = await self._credentials.identify(
            given[0].decode("latin-1") if given else "", scope["state"].get("certificate")
        )
        try:
            permit(identity, need)
        except Refused as refused:
            if need.audited:
                await self._refusals.record(identity, f"{scope['method']} {route.template}", refused.reason)
            raise
        return identity

    def _told(self, error: BaseException, request_id: str, path: str) -> Problem:
        """Return the problem that ``error`` is to the caller, and log it; a defect of ours with its place."""
        problem = as_problem(error)
        self.metrics.problem(problem.code)
        if problem.told:
            return problem
        ours = problem.code == "internal"
        log = self._log.error if problem.status >= 500 else self._log.warning
        log(
            "request_failed",
            request_id=request_id,
            path=path,
            status=problem.status,
            code=problem.code,
            **({"error": type(error).__name__, "where": _where(error)} if ours else {}),
        )
        return problem


def _named(method: str, route: Route) -> str:
    """Return what figures call a route: nothing that a caller has made up."""
    return f"{method} {route.template}" if method in route.methods else "other"


def _of_this_machine(scope: Scope) -> bool:
    """Tell whether a process of this machine calls, and not a proxy here for somebody elsewhere."""
    client = scope["client"]
    return client is not None and client[0] in LOOPBACK and not any(name in FORWARDED for name, _ in scope["headers"])


def as_problem(error: BaseException) -> Problem:
    """Return the problem that tells a caller of ``error``."""
    match error:
        case Problem():
            problem = error
        case Unauthenticated():
            problem = Problem(401, error.reason, "the credential does not hold; get a new one")
        case Refused():
            problem = Problem(error.status, error.reason, error.message)
        case RateLimited():
            headers = {"Retry-After": str(math.ceil(error.seconds))}
            problem = Problem(429, "rate_limited", "more than the caller's share; nothing was queued", headers=headers)
        case IssuerUnavailable():
            problem = Problem(503, "issuer_unavailable", "the issuer's keys cannot be had; retry")
        case StorageError():
            problem = Problem(503, "storage", "the log cannot be written or read now; nothing was acknowledged; retry")
        case asyncio.CancelledError():  # only the server's end cancels requests
            problem = Problem(503, "ending", "central ends, and this took too long; nothing was acknowledged; retry")
        case Busy():
            problem = Problem(503, "busy", "more events wait than the disk takes; retry")
        case IntegrityError():
            problem = Problem(500, "integrity", "the stored hashes of the log are not whole; verify it")
        case _:
            problem = Problem(500, "internal", "a defect of ours; nothing was acknowledged")
    return problem


def _where(error: BaseException) -> list[str]:
    """Return the places that an error passed, without its message and without any value."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
