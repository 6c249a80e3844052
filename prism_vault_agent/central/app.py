"""The composition root of central: from a configuration to an ASGI application. The only file here that builds things."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from prism_vault_agent import __version__
from prism_vault_agent.central.access.identity import Credentials
from prism_vault_agent.central.access.issuer import TokenIssuer
from prism_vault_agent.central.access.live import Live
from prism_vault_agent.central.access.policy import Policy
from prism_vault_agent.central.anchoring import Anchoring
from prism_vault_agent.central.anchors import places
from prism_vault_agent.central.http.appending import AppendRoutes
from prism_vault_agent.central.http.door import Door
from prism_vault_agent.central.http.openapi import complete
from prism_vault_agent.central.http.orders import OrderRoutes
from prism_vault_agent.central.http.policies import CONFIGURED, PolicyRoutes
from prism_vault_agent.central.http.problem import Problem
from prism_vault_agent.central.http.proving import ProofRoutes
from prism_vault_agent.central.http.reading import ReadRoutes
from prism_vault_agent.central.http.schema import TEXT, answers, record
from prism_vault_agent.central.http.signals import SignalStreams
from prism_vault_agent.central.http.tokens import TokenRoutes
from prism_vault_agent.central.log.feed import Feed
from prism_vault_agent.central.log.proofs import Proofs, origin_of
from prism_vault_agent.central.log.receipts import Receipts
from prism_vault_agent.central.log.releases import Revocations
from prism_vault_agent.central.log.sequencer import Sequencer
from prism_vault_agent.central.log.signals import CHANNEL
from prism_vault_agent.central.log.store import StorageError, Store
from prism_vault_agent.central.log.sweep import Sweeper
from prism_vault_agent.central.log.told import ToldRows
from prism_vault_agent.central.log.writer import Busy, Writer
from prism_vault_agent.central.signing import signer
from prism_vault_agent.central.storage.engines import reading_engine, writing_engine
from prism_vault_agent.central.storage.listen import listen
from prism_vault_agent.central.storage.postgres import is_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from fastapi import APIRouter
    from starlette.types import Lifespan

    from prism_vault_agent.central.config import CentralConfig

    Work = Callable[[], Coroutine[None, None, None]]

PROBE_SECONDS: Final = 1.0
STATUS: Final = record({"status": TEXT})


class Readiness:
    """Whether the log can be written, asked at most once a second however many ask."""

    def __init__(self, writer: Writer) -> None:
        """Ask ``writer``."""
        self._writer = writer
        self._asked = -PROBE_SECONDS
        self._ready = False
        self._asking = asyncio.Lock()

    async def ready(self) -> bool:
        """Tell whether a transaction was written durably within the last second."""
        async with self._asking:
            if time.monotonic() - self._asked >= PROBE_SECONDS:
                try:
                    await self._writer.probe()
                    self._ready = True
                except (StorageError, Busy):
                    self._ready = False
                self._asked = time.monotonic()
            return self._ready


def build(config: CentralConfig) -> Door:
    """Return central as an ASGI application; its lifespan starts and ends the writer and the sweeper."""
    log = structlog.get_logger("central")
    issuer = TokenIssuer(config.issuer) if config.issuer is not None else None
    configured = [Policy(f"{CONFIGURED}{number}", 0, entry.rule()) for number, entry in enumerate(config.policies, 1)]
    live = Live(reading_engine(config.database, 1), configured)
    credentials = Credentials(config, issuer, live)
    readers = reading_engine(config.database)
    shared = is_postgres(config.database)

    def failed(error: Exception) -> None:
        log.error("transaction_failed", error=type(error).__name__, cause=str(error))

    writer = Writer(Store(writing_engine(config.database)), failed)
    # Where others write too, sequencing waits for nobody and nobody for it; in a file, only one can write.
    sequencing = Writer(Store(writing_engine(config.database)), failed) if shared else writer
    signs = signer(config, origin_of(readers))
    sequencer = Sequencer(sequencing, signs, config.log.checkpoint_interval, shared=shared)
    proofs = Proofs(readers, config.log.checkpoint_interval)
    writer.news = live.news = sequencer.news  # a row that another process puts into a file is news too
    sweeper = Sweeper(readers, writer, config.reservation_ttl)
    feed = Feed(readers, live.follow)
    writer.told = feed.told
    told = ToldRows(feed, writer)
    works: list[Work] = [live.run, sweeper.run, sequencer.run, partial(feed.run, told.note), told.run]
    if config.log.anchor is not None:
        works.append(Anchoring(proofs, places(config.log.anchor), config.log.anchor.every).run)
    if shared:
        works.append(partial(listen, config.database, CHANNEL, feed.told))

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        writers = {writer, sequencing}
        for each in writers:
            each.start()
        await live.follow()
        loops = [asyncio.create_task(work()) for work in works]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            for each in writers:
                await asyncio.to_thread(each.stop)
            live.close()
            readers.dispose()
            await asyncio.to_thread(signs.close)
            if issuer is not None:
                await issuer.close()
            log.info("stopped")

    routers = [
        ReadRoutes(readers, sequencer.grown).router(),
        ProofRoutes(proofs, signs.verifying_key).router(),
        OrderRoutes(writer, Revocations(readers, feed.hosts)).router(),
        PolicyRoutes(readers, writer, live, credentials, configured).router(),
        TokenRoutes(readers, writer, live, config.tokens).router(),
    ]
    app = _Api(lifespan, routers, Readiness(writer))
    return Door(app, AppendRoutes(writer, live, Receipts(signs)), SignalStreams(feed), credentials)


class _Api(FastAPI):
    """The routes that need not be fast, and the description of all."""

    def __init__(self, lifespan: Lifespan[_Api], routers: Sequence[APIRouter], readiness: Readiness) -> None:
        super().__init__(
            title="prism-vault central",
            version=__version__,
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        self._readiness = readiness
        for router in routers:
            self.include_router(router)
        healthy = answers({200: STATUS}, "http", "internal", common=())
        self.add_api_route("/healthz", self.healthz, response_class=Response, tags=["health"], responses=healthy)
        ready = answers({200: STATUS}, "http", "internal", "storage", common=())
        self.add_api_route("/readyz", self.readyz, response_class=Response, tags=["health"], responses=ready)
        self.add_exception_handler(RequestValidationError, _answer_invalid)
        self.add_exception_handler(HTTPException, _answer_http)
        self.add_exception_handler(Exception, _pass_on)

    async def healthz(self) -> Response:
        """Tell that the process serves."""
        return JSONResponse({"status": "ok"})

    async def readyz(self) -> Response:
        """Tell whether the log can be written."""
        if not await self._readiness.ready():
            raise Problem(503, "storage", "the log cannot be written now")
        return JSONResponse({"status": "ready"})

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of every route."""
        if self.openapi_schema is None:
            self.openapi_schema = complete(super().openapi())
        return self.openapi_schema


async def _pass_on(_request: Request, error: Exception) -> Response:
    """Leave the error to the door around us."""
    raise error


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    in_body = any(fault["loc"][0] == "body" for fault in faults)
    ours = [fault["msg"].removeprefix("Value error, ") for fault in faults if fault["type"] == "value_error"]
    names = ", ".join(sorted({str(fault["loc"][-1]) for fault in faults}))
    told = ours[0] if ours else f"wrong or unknown: {names[:200]}"
    return (Problem(400, "malformed", told) if in_body else Problem(400, "query", told)).response(request.state.request_id)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "no_such_route", 405: "method"}.get(error.status_code, "http")
    headers = dict(error.headers or {})
    return Problem(error.status_code, code, "see /openapi.json", headers=headers).response(request.state.request_id)
