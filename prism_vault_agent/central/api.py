"""The HTTP door of the audit log: parse, call the verb, map the answer. ``docs/protocol.md`` says what each route promises."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import structlog
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from prism_vault_agent.central.answer import Answer
from prism_vault_agent.central.append import append
from prism_vault_agent.central.door import body_of
from prism_vault_agent.central.find import MOST_ROWS, Question, find, head
from prism_vault_agent.central.incoming import LARGEST_EVENT, Event, Malformed, read
from prism_vault_agent.central.problem import Problem
from prism_vault_agent.central.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from prism_vault_agent.central.identity import Credentials, Identity
    from prism_vault_agent.central.policy import Rule
    from prism_vault_agent.central.writer import Writer

MOST_EVENTS: Final = 256
LARGEST_BATCH: Final = 4 * 1024 * 1024
LARGEST_BODY: Final = 2 * LARGEST_BATCH  # as text within text a quote takes two bytes

_TEXT: Final = {"type": "string"}
_EVENT_BODY: Final = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
}
_BATCH_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["events"],
                    "properties": {"events": {"type": "array", "maxItems": MOST_EVENTS, "items": _TEXT}},
                }
            }
        },
    }
}


class EventsQuery(BaseModel):
    """The query of ``GET /v1/audit/events``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    after: Annotated[int, Field(ge=0, lt=2**63)] = 0
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 100
    last: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = None
    scope: str | None = None
    host: str | None = None
    run_ref: str | None = None
    job_id: str | None = None
    purpose: str | None = None
    kind: str | None = None
    reservation: Annotated[str, Field(pattern="^(pva_)?[0-9a-f]{32}$")] | None = None
    since: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    until: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class AuditRoutes:
    """The routes of the audit log, over one writer and one reading engine."""

    def __init__(self, writer: Writer, engine: Engine, credentials: Credentials, rules: Sequence[Rule]) -> None:
        """Serve what ``writer`` and ``engine`` hold to whom ``credentials`` knows."""
        self._writer = writer
        self._engine = engine
        self._credentials = credentials
        self._rules = rules
        self._log = structlog.get_logger("audit")

    def router(self) -> APIRouter:
        """Return the routes."""
        routes = APIRouter(prefix="/v1/audit", tags=["audit"])
        post = partial(routes.add_api_route, methods=["POST"], response_class=Response)
        post("/events:batch", self.append_batch, openapi_extra=_BATCH_BODY)
        post("/reservations", self.reserve, status_code=201, openapi_extra=_EVENT_BODY)
        post("/reservations/{reservation}/finalize", self.finalize, openapi_extra=_EVENT_BODY)
        routes.add_api_route("/events", self.events, response_class=Response)
        routes.add_api_route("/head", self.head, response_class=Response)
        return routes

    async def append_batch(self, request: Request) -> Response:
        """Append events of one host in order, in one transaction; the answer has one result for each."""
        agent = await self._agent(request)
        texts = _texts(await body_of(request, LARGEST_BODY))
        events = [_read(text) for text in texts]
        answers = await self._append(agent, events, request)
        return _json({"results": [answer.plain() for answer in answers]})

    async def reserve(self, request: Request) -> Response:
        """Append one ``reserved`` event: 201, or 403 with both rows on the log where policy says no."""
        agent = await self._agent(request)
        return await self._one(agent, request, _read(await body_of(request, LARGEST_EVENT)), {"reserved"})

    async def finalize(self, request: Request, reservation: str) -> Response:
        """Append the event that ends a reservation: 200, or 409 where it has ended."""
        agent = await self._agent(request)
        event = _read(await body_of(request, LARGEST_EVENT))
        if isinstance(event, Event) and event.reservation != reservation.removeprefix("pva_"):
            raise Problem(400, "other_reservation", "the event is about another reservation than the path")
        return await self._one(agent, request, event, {"success", "failure", "denied"})

    async def events(self, request: Request, query: Annotated[EventsQuery, Query()]) -> Response:
        """Return a page of the events of the caller's projects."""
        identity = await self._identify(request)
        asked = query.model_dump()
        if query.reservation is not None:
            asked["reservation"] = query.reservation.removeprefix("pva_")
        page = await self._look(partial(find, self._engine, identity, Question(**asked)))
        return _json({"events": page.events, "next": page.next})

    async def head(self, request: Request) -> Response:
        """Return where the caller's own newest chain stands."""
        agent = await self._agent(request)
        return _json(await self._look(partial(head, self._engine, agent.host)))

    async def _identify(self, request: Request) -> Identity:
        return await self._credentials.identify(request.headers.get("authorization", ""))

    async def _agent(self, request: Request) -> Identity:
        identity = await self._identify(request)
        if identity.role != "agent":
            raise Problem(403, "role", "only the agent of a host does this")
        return identity

    async def _append(self, agent: Identity, events: list[Event | Answer], request: Request) -> list[Answer]:
        """Append durably, and log what was refused."""
        answers = await self._writer.do(partial(append, identity=agent, rules=self._rules, events=events))
        for answer in answers:
            if answer.reason and answer.status != 424:
                self._log.warning(
                    "event_refused" if not answer.appended else "reservation_denied",
                    request_id=request.state.request_id,
                    host=agent.host,
                    status=answer.status,
                    reason=answer.reason,
                    audit_id=answer.audit_id,
                )
        return answers

    async def _one(self, agent: Identity, request: Request, event: Event | Answer, kinds: set[str]) -> Response:
        """Append one event, and answer in the status of the whole response."""
        if isinstance(event, Event) and event.kind not in kinds:
            raise Problem(400, "other_kind", f"the event's kind is none of {', '.join(sorted(kinds))}")
        (answer,) = await self._append(agent, [event], request)
        if answer.reason:
            raise Problem(answer.status, answer.reason, answer.message, more=answer.plain())
        return _json(answer.plain(), answer.status)

    async def _look(self, question: partial[Any]) -> Any:
        """Read in a thread. Raises :class:`StorageError` where the database cannot be read."""
        try:
            return await asyncio.to_thread(question)
        except SQLAlchemyError as error:
            raise StorageError(type(error).__name__) from error


def _texts(body: bytes) -> list[str]:
    """Return the event texts of a batch, or raise :class:`Problem` 400 or 413."""
    try:
        texts = json.loads(body)["events"]
    except (ValueError, KeyError, TypeError, RecursionError):
        texts = None
    if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
        raise Problem(400, "malformed", 'a batch is {"events": [text, ...]} with at least one event')
    if len(texts) > MOST_EVENTS or sum(map(len, texts)) > LARGEST_BATCH:
        raise Problem(413, "too_large", f"a batch has at most {MOST_EVENTS} events and {LARGEST_BATCH} bytes")
    return texts


def _read(text: str | bytes) -> Event | Answer:
    """Return the event, or the answer that refuses it: 400 where its bytes are not one, 413 where it is too large."""
    try:
        body = text.encode() if isinstance(text, str) else text
        if len(body) > LARGEST_EVENT:
            return Answer(413, appended=False, reason="too_large", message="an event has at most 256 KiB")
        return read(body)
    except Malformed as error:
        return Answer(400, appended=False, event_id=error.event_id, reason="malformed", message=str(error))
    except UnicodeEncodeError:
        return Answer(400, appended=False, reason="malformed", message="an event is UTF-8")


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass"), status, None, "application/json")
