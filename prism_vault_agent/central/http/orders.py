"""The routes by which operators rotate and revoke, and see what became of it."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from prism_vault_agent.audit.target import ANY, Target
from prism_vault_agent.central.http.problem import Problem
from prism_vault_agent.central.http.schema import TEXT, WHOLE, YES_OR_NO, answers, array, maybe, record, told
from prism_vault_agent.central.log.evidence import State
from prism_vault_agent.central.log.orders import Order, place
from prism_vault_agent.central.log.store import StorageError

if TYPE_CHECKING:
    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.log.releases import Revocations
    from prism_vault_agent.central.log.writer import Writer

Text = Annotated[str, Field(min_length=1, max_length=256)]
MOST_SHOWN: Final = 100
WHEN: Final = maybe(WHOLE)
PLACED: Final = record({"id": told(WHOLE, "of the signal"), "n": told(WHOLE, "of its row on the log"), "audit_id": TEXT})
_REVOCATION: Final = {
    "id": told(WHOLE, "of the signal"),
    "n": told(WHOLE, "of its row on the log"),
    "made_at": told(WHOLE, "milliseconds since 1970"),
    "audit_id": TEXT,
    "by": told(TEXT, "who ordered it"),
    "target": told({"type": "object"}, "the conditions, or everything"),
    "projects": array(TEXT),
    "why": TEXT,
    "emergency": YES_OR_NO,
}
_RELEASE: Final = record(
    {
        "audit_id": TEXT,
        "scopes": told(array(TEXT), "none where the row was dropped"),
        "run_ref": maybe(TEXT),
        "state": {"type": "string", "enum": ["cleared", "left", "unwatched"]},
        "at": told(WHEN, "when its end came on the log"),
        "n": told(WHOLE, "of the row of its end, or of its success"),
    }
)
_HOST: Final = record(
    {
        "host": TEXT,
        "state": {"type": "string", "enum": list(get_args(State))},
        "told_at": told(WHEN, "when it was known to be sent"),
        "received_at": told(WHEN, "when its first answer came"),
        "done_at": told(WHEN, "when it said that it is done"),
        "ended": told(WHOLE, "runs that it says it ended"),
        "failed": told(WHOLE, "runs that it says it could not end"),
        "cleared": told(WHOLE, "releases that it cleared for this, by the log"),
        "left": told(WHOLE, "releases without an end on the log"),
        "unwatched": told(WHOLE, "the same, made by an earlier start of its agent or by exec --direct"),
        "releases": told(array(_RELEASE), "the first 20 in each state"),
    }
)
LISTED: Final = record({"revocations": array(record({**_REVOCATION, "answered": told(WHOLE, "hosts that answered")}))})
EVIDENCE: Final = record(
    {
        **_REVOCATION,
        "complete": told(YES_OR_NO, "every host that it concerns has cleared all that it means"),
        "states": told({"type": "object", "additionalProperties": WHOLE}, "how many hosts are in each state"),
        "hosts": array(_HOST),
    }
)


class Rotation(BaseModel):
    """A newer value exists: whoever has what is meant looks for it now.

    ``id`` is made by who orders; the same order sent again is the same order. What is meant fulfils every condition that is
    given, or is ``everything``; within ``project``, where it is given, else within all of the caller's projects.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    scope: Text | None = None
    reference: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    host: Text | None = None
    run_ref: Text | None = None
    everything: StrictBool = False
    project: Text | None = None
    reason: Annotated[str, Field(max_length=500)] = ""


class Revocation(Rotation):
    """The value must no longer be used: whoever has it is ended. ``emergency`` leaves no time to end by itself."""

    emergency: StrictBool = False


class Page(BaseModel):
    """The query of ``GET /v1/revocations``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    before: Annotated[int, Field(ge=1, lt=2**63)] = 2**62
    limit: Annotated[int, Field(ge=1, le=MOST_SHOWN)] = 20


SIGNAL_SCHEMAS: Final = {model.__name__: model.model_json_schema() for model in (Rotation, Revocation)}


class OrderRoutes:
    """The routes, over one writer and the revocations on the log."""

    def __init__(self, writer: Writer, revocations: Revocations) -> None:
        """Order through ``writer``; show ``revocations``."""
        self._writer = writer
        self._revocations = revocations

    def router(self) -> APIRouter:
        """Return the routes."""
        routes = APIRouter(prefix="/v1", tags=["signals"])
        placed = answers({200: PLACED, 201: PLACED}, "malformed", "other_project", "id_reused", "busy")
        post: dict[str, Any] = {"methods": ["POST"], "response_class": Response, "responses": placed, "status_code": 201}
        routes.add_api_route("/rotations", self.rotate, **post)
        routes.add_api_route("/revocations", self.revoke, **post)
        listed, evidence = answers({200: LISTED}, "query"), answers({200: EVIDENCE}, "query", "no_such_revocation")
        routes.add_api_route("/revocations", self.revocations, response_class=Response, responses=listed)
        routes.add_api_route("/revocations/{id}", self.revocation, response_class=Response, responses=evidence)
        return routes

    async def rotate(self, request: Request, rotation: Rotation) -> Response:
        """Tell all hosts that newer values exist: 201, or 200 where the same order was there before."""
        return await self._place(request.state.identity, "rotation", rotation, emergency=False)

    async def revoke(self, request: Request, revocation: Revocation) -> Response:
        """Have all hosts end what is meant: 201, or 200 where the same order was there before."""
        return await self._place(request.state.identity, "revocation", revocation, emergency=revocation.emergency)

    async def revocations(self, request: Request, page: Annotated[Page, Query()]) -> Response:
        """Return the newest revocations of the caller's projects."""
        found = await _look(partial(self._revocations.newest, request.state.identity, page.before, page.limit))
        return _json({"revocations": found})

    async def revocation(self, request: Request, id: Annotated[int, Field(ge=1, lt=2**63)]) -> Response:  # noqa: A002 - the path's
        """Return a revocation, and which hosts have cleared what and when, and which have not answered."""
        found = await _look(partial(self._revocations.evidence, request.state.identity, id))
        if found is None:
            raise Problem(404, "no_such_revocation", "the caller may see no revocation of this id")
        return _json(found)

    async def _place(
        self, identity: Identity, kind: Literal["rotation", "revocation"], asked: Rotation, *, emergency: bool
    ) -> Response:
        conditions = asked.model_dump(include={"scope", "reference", "host", "run_ref"})
        if asked.everything:
            conditions["everything"] = True
        try:
            target = Target.parse(conditions, _projects(identity, asked.project))
        except ValueError:
            raise Problem(
                400, "malformed", "say scope, reference, host and run_ref as they apply, or everything; see docs/protocol.md"
            ) from None
        order = Order(asked.id, kind, identity.name, target, emergency, asked.reason)
        placed = await self._writer.do(partial(place, order=order), [order.id])
        if placed is None:
            raise Problem(422, "id_reused", "another order, or an event, has this id")
        return _json({"id": placed.signal, "n": placed.n, "audit_id": placed.audit_id}, 200 if placed.again else 201)


def _projects(identity: Identity, project: str | None) -> list[str]:
    """Return the projects that an order is about. Raises :class:`Problem` for one that is not the caller's."""
    if project is None:
        return [ANY] if identity.sees_all else sorted(identity.projects)
    if not identity.sees_all and project not in identity.projects:
        raise Problem(403, "other_project", "the project is not one of the caller's")
    return [project]


async def _look(question: partial[Any]) -> Any:
    """Read in a thread. Raises :class:`StorageError` where the database cannot be read."""
    try:
        return await asyncio.to_thread(question)
    except SQLAlchemyError as error:
        raise StorageError(type(error).__name__) from error


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(content), status, None, "application/json")
