"""The routes of service tokens: make one, which is shown this once; list them; revoke one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from prism_vault_agent.central.access import token_rows
from prism_vault_agent.central.access.permission import SCOPES, Refused
from prism_vault_agent.central.access.token_request import TokenRequest, new_token
from prism_vault_agent.central.http.answer import as_json, look
from prism_vault_agent.central.http.schema import TEXT, WHOLE, answers, array, maybe, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.access.live import Live
    from prism_vault_agent.central.access_settings import ServiceToken
    from prism_vault_agent.central.log.writer import Writer

_BY: Final = {"oneOf": [record({"name": TEXT, "by": TEXT}), {"type": "null"}]}
_TOKEN: Final = {
    **dict.fromkeys(("name", "host"), TEXT),
    "role": {"enum": sorted(SCOPES)},
    **dict.fromkeys(("projects", "scopes"), array(TEXT)),
    **dict.fromkeys(("made_at", "expires_at", "revoked_at", "n"), maybe(WHOLE)),
    **dict.fromkeys(("made_by", "revoked_by"), _BY),
}
TokenName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class TokenRoutes:
    """The routes, for operators. Nobody sees, makes or revokes a token of projects that are not its own."""

    def __init__(self, engine: Engine, writer: Writer, live: Live, configured: Sequence[ServiceToken]) -> None:
        """Read through ``engine``, change through ``writer``; ``live`` follows. ``configured`` tokens are listed only."""
        self._engine = engine
        self._writer = writer
        self._live = live
        self._configured = {token.name: token for token in configured}

    def router(self) -> APIRouter:
        """Return the routes."""
        routes = APIRouter(prefix="/v1/tokens", tags=["tokens"], default_response_class=Response)
        routes.add_api_route("", self.every, responses=answers({200: record({"tokens": array(record(_TOKEN))})}))
        made = answers({201: record({**_TOKEN, "token": TEXT})}, "malformed", "too_large", "beyond_own", "name_taken", "busy")
        routes.add_api_route("", self.make, methods=["POST"], status_code=201, responses=made)
        gone = answers({200: record(_TOKEN)}, "query", "too_large", "other_project", "no_such_token", "configured", "busy")
        routes.add_api_route("/{name}", self.revoke, methods=["DELETE"], responses=gone)
        return routes

    async def every(self, request: Request) -> Response:
        """Return every token of the caller's projects, those that have ended too; never a token itself or its hash."""
        identity: Identity = request.state.identity
        tokens = await look(self._engine, token_rows.read)
        shown = [token.plain() for token in tokens if token.believed and token_rows.may_see(identity, token.grant)]
        configured = [_plain(token) for token in self._configured.values() if identity.sees_all]
        return as_json({"tokens": [*configured, *shown]})

    async def make(self, request: Request, asked: TokenRequest) -> Response:
        """Make a token. This answer is the only place where it is ever shown."""
        identity: Identity = request.state.identity
        if asked.name in self._configured:
            raise Refused(409, "name_taken", "central's configuration has a token of this name")
        token, sha256 = new_token()
        work = partial(token_rows.make, who=identity, grant=asked.grant, sha256=sha256, lasts=asked.lasts)
        made = await self._writer.do(work)
        if isinstance(made, Refused):
            raise made
        await self._live.follow()
        return as_json({**made.plain(), "token": token}, 201, cache_control="no-store")

    async def revoke(self, request: Request, name: TokenName) -> Response:
        """Revoke a token, on every replica at once."""
        if name in self._configured:
            raise Refused(409, "configured", "this token is of central's configuration; strike it there")
        revoked = await self._writer.do(partial(token_rows.revoke, who=request.state.identity, name=name))
        if isinstance(revoked, Refused):
            raise revoked
        await self._live.follow()
        return as_json(revoked.plain())


def _plain(token: ServiceToken) -> dict[str, Any]:
    """Return a token of the configuration as the others are shown."""
    told = {"name": token.name, "role": token.role, "host": token.host, "projects": sorted(token.projects)}
    stored = {"made_at": None, "made_by": None, "n": None, "expires_at": None, "revoked_at": None, "revoked_by": None}
    return {**told, "scopes": sorted(SCOPES[token.role]), **stored}
