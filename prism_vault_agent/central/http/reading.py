"""The routes that read the log: pages of events of the caller's projects, and where the caller's own chain stands."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from prism_vault_agent.central.http.schema import TEXT, WHOLE, YES_OR_NO, answers, array, hexadecimal, maybe, record, told
from prism_vault_agent.central.log.find import find, head
from prism_vault_agent.central.log.follow import Stretch, follow, newest
from prism_vault_agent.central.log.question import MOST_ROWS, Question
from prism_vault_agent.central.log.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Engine

    from prism_vault_agent.central.access.identity import Identity


LONGEST_WAIT: Final = 20  # seconds

_ROW: Final = {
    "n": told(WHOLE, "index on the log"),
    "event_id": hexadecimal(16),
    "host_id": TEXT,
    "host_epoch": hexadecimal(16),
    "host_seq": WHOLE,
    "prev_hash": hexadecimal(32),
    "kind": TEXT,
    "reservation_id": hexadecimal(16),
    "received_at": told(WHOLE, "milliseconds since 1970, central's clock"),
    "body": told(TEXT, "the event exactly as it was sent and hashed; empty where it was dropped"),
    "hash": told(hexadecimal(32), "SHA-256 of the body as it was sent"),
    "dropped_by": told(maybe(WHOLE), "index of the event that dropped the body, else null"),
}
_LEAF: Final = {"index": told(WHOLE, "of the leaf in the tree"), "leaf": hexadecimal(32)}
PAGE: Final = record(
    {
        "events": array(record(_ROW)),
        "next": told(maybe(WHOLE), "go on with ?after= this; null at the end of the log"),
        "all_projects": told(YES_OR_NO, "the caller reads every project, and the rows that belong to none"),
    }
)
STRETCH: Final = record(
    {
        "rows": array(
            told(
                record({**_LEAF, **_ROW}, optional=[name for name in _ROW if name != "n"]),
                "a row and its leaf; of an event that is missing only the leaf",
            )
        ),
        "next": told(WHOLE, "go on with ?from= this"),
        "size": told(WHOLE, "how many leaves there are"),
        "all_projects": told(YES_OR_NO, "the caller reads every project, and the rows that belong to none"),
    }
)
HEAD: Final = record({"host": TEXT, "epoch": maybe(hexadecimal(16)), "seq": WHOLE, "hash": hexadecimal(32)})


class LogQuery(BaseModel):
    """The query of ``GET /v1/audit/log``: from which leaf on, or the ``last`` ones; how many seconds to ``wait`` for one."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    first: Annotated[int, Field(alias="from", ge=0, lt=2**63)] = 0
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = MOST_ROWS
    last: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = None
    wait: Annotated[int, Field(ge=0, le=LONGEST_WAIT)] = 0


class ReadRoutes:
    """The routes, over one engine that cannot write; ``grown`` returns once the log has more leaves than that."""

    def __init__(self, engine: Engine, grown: Callable[[int], Awaitable[None]]) -> None:
        """Show what ``engine`` reads."""
        self._engine = engine
        self._grown = grown
        self._patient: set[asyncio.Timeout] = set()
        self._ended = False

    def end(self) -> None:
        """Answer everyone who waits with what there is, and let nobody wait from now on."""
        self._ended = True
        for patience in self._patient:
            patience.reschedule(0.0)

    def router(self) -> APIRouter:
        """Return the routes."""
        routes = APIRouter(prefix="/v1/audit", tags=["audit"])
        routes.add_api_route("/events", self.events, response_class=Response, responses=answers({200: PAGE}, "query"))
        routes.add_api_route("/log", self.log, response_class=Response, responses=answers({200: STRETCH}, "query"))
        routes.add_api_route("/head", self.head, response_class=Response, responses=answers({200: HEAD}))
        return routes

    async def events(self, request: Request, question: Annotated[Question, Query()]) -> Response:
        """Return a page of the events of the caller's projects."""
        identity: Identity = request.state.identity
        page = await _look(partial(find, self._engine, identity, question))
        return _json({"events": page.events, "next": page.next, "all_projects": identity.sees_all})

    async def log(self, request: Request, query: Annotated[LogQuery, Query()]) -> Response:
        """Return rows of the caller's projects in the final order of the log, and wait for one where there is none yet."""
        identity: Identity = request.state.identity
        if query.last is not None:
            stretch = await _look(partial(newest, self._engine, identity, query.last))
        else:
            stretch = await self._follow(identity, query)
        return _json({"rows": stretch.rows, "next": stretch.next, "size": stretch.size, "all_projects": identity.sees_all})

    async def _follow(self, identity: Identity, query: LogQuery) -> Stretch:
        """Return the next rows, looked for again while there are none, whenever the log has grown."""
        first = query.first
        until = asyncio.get_running_loop().time() + query.wait
        while True:
            stretch: Stretch = await _look(partial(follow, self._engine, identity, first, query.limit))
            if stretch.rows or stretch.next < stretch.size or self._ended:
                return stretch
            first = stretch.next
            patience = asyncio.timeout_at(until)
            try:
                async with patience:
                    self._patient.add(patience)
                    await self._grown(first)
            except TimeoutError:
                return stretch
            finally:
                self._patient.discard(patience)

    async def head(self, request: Request) -> Response:
        """Return where the caller's own newest chain stands."""
        identity: Identity = request.state.identity
        return _json(await _look(partial(head, self._engine, identity.host)))


async def _look(look: partial[Any]) -> Any:
    """Read in a thread. Raises :class:`StorageError` where the database cannot be read."""
    try:
        return await asyncio.to_thread(look)
    except SQLAlchemyError as error:
        raise StorageError(type(error).__name__) from error


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), 200, None, "application/json")
