"""The routes of policies: what holds, what held, who changed it; set and remove one; why something is allowed or not."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from prism_vault_agent.central.access import policy_rows
from prism_vault_agent.central.access.live import holding
from prism_vault_agent.central.access.permission import Refused
from prism_vault_agent.central.access.policy import ANY, Intent, Policy, explain
from prism_vault_agent.central.access_settings import PolicyEntry
from prism_vault_agent.central.http.answer import as_json, look
from prism_vault_agent.central.http.schema import TEXT, WHOLE, YES_OR_NO, answers, array, maybe, record
from prism_vault_agent.central.shapes import Name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from prism_vault_agent.central.access.identity import Credentials, Identity
    from prism_vault_agent.central.access.live import Live
    from prism_vault_agent.central.log.writer import Writer

CONFIGURED: Final = "config:"
_VERSION: Final = re.compile(r'"(?P<version>[1-9][0-9]{0,15})"')
PolicyName = Annotated[str, Path(pattern=r"^(config:[1-9][0-9]{0,5}|[A-Za-z0-9][A-Za-z0-9._-]{0,99})$")]
Text = Annotated[str, Field(min_length=1, max_length=200)]


_RULE: Final = {
    **dict.fromkeys(("project", "environment"), TEXT),
    **dict.fromkeys(("scopes", "hosts", "kinds", "purposes"), array(TEXT)),
}
_BY: Final = {"oneOf": [record({"name": TEXT, "by": TEXT}), {"type": "null"}]}
_CHANGE: Final = {"name": TEXT, "version": WHOLE, "made_at": maybe(WHOLE), "by": _BY, "n": maybe(WHOLE), "removed": YES_OR_NO}
_REMOVED: Final = ("environment", "scopes", "hosts", "kinds", "purposes")  # what a removal does not have
_POLICY: Final = record({**_CHANGE, **_RULE}, optional=_REMOVED)
_VERSION_OF_ONE: Final = record({**_CHANGE, **_RULE, "recorded": YES_OR_NO}, optional=(*_REMOVED, "recorded"))
_EXPLANATION: Final = record(
    {
        "allowed": YES_OR_NO,
        "version": WHOLE,
        "allowed_by": array(TEXT),
        **dict.fromkeys(("reason", "message"), TEXT),
        "policies": array(record({"name": TEXT, "fails": TEXT})),
    }
)


class Question(BaseModel):
    """What would be reserved: by which host, for whom, and for which reason."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    host: Name
    project: Name
    environment: Name
    scopes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=256)]
    kind: Text
    purpose: Text
    run_ref: Text | None = None
    job_id: Text | None = None


class AtVersion(BaseModel):
    """The query of ``GET /v1/policies``: those of now, or those of a version."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: Annotated[int, Field(ge=0, lt=2**53)] | None = None


class PolicyRoutes:
    """The routes, for operators and their own projects."""

    def __init__(
        self, engine: Engine, writer: Writer, live: Live, credentials: Credentials, configured: Sequence[Policy]
    ) -> None:
        """Read through ``engine``, change through ``writer``; ``live`` follows, and ``configured`` always hold."""
        self._engine = engine
        self._writer = writer
        self._live = live
        self._credentials = credentials
        self._configured = configured

    def router(self) -> APIRouter:
        """Return the routes."""
        routes = APIRouter(tags=["policies"], default_response_class=Response)
        every = answers({200: record({"version": WHOLE, "policies": array(_POLICY)})}, "query", "no_such_version")
        routes.add_api_route("/v1/policies", self.every, responses=every)
        why = answers({200: _EXPLANATION}, "malformed", "too_large", "other_project")
        routes.add_api_route("/v1/policies:explain", self.explain, methods=["POST"], responses=why)
        one = answers({200: record({"name": TEXT, "versions": array(_VERSION_OF_ONE)})}, "query", "no_such_policy")
        routes.add_api_route("/v1/policies/{name}", self.history, responses=one)
        change = ("query", "too_large", "precondition", "other_project", "configured", "changed", "busy")
        routes.add_api_route(
            "/v1/policies/{name}", self.set, methods=["PUT"], responses=answers({200: _POLICY}, "malformed", *change)
        )
        gone = answers({200: _POLICY}, "no_such_policy", *change)
        routes.add_api_route("/v1/policies/{name}", self.remove, methods=["DELETE"], responses=gone)
        return routes

    async def every(self, request: Request, at: Annotated[AtVersion, Query()]) -> Response:
        """Return every policy of the caller's projects that holds, or that held at ``version``."""
        identity: Identity = request.state.identity
        version = at.version
        changes = await look(self._engine, partial(policy_rows.read, until=version))
        last = changes[-1].version if changes else 0
        if version is not None and version > last:
            raise Refused(404, "no_such_version", f"the newest version is {last}")
        held = {policy.name for policy in holding(changes)}
        present = [change.plain() for change in {change.name: change for change in changes}.values() if change.name in held]
        shown = [each for each in (*map(_configured, self._configured), *present) if _sees(identity, each["project"])]
        return as_json({"version": last, "policies": shown})

    async def history(self, request: Request, name: PolicyName) -> Response:
        """Return every version of a policy, as far as it was of the caller's projects."""
        identity: Identity = request.state.identity
        changes = await look(self._engine, partial(policy_rows.read, name=name))
        plain = [{**change.plain(), "recorded": change.believed} for change in changes]
        plain += [_configured(policy) for policy in self._configured if policy.name == name]
        versions = [each for each in plain if _sees(identity, each["project"])]
        if not versions:
            raise Refused(404, "no_such_policy", "there is no policy of this name")
        return as_json({"name": name, "versions": versions})

    async def set(self, request: Request, name: PolicyName, entry: PolicyEntry) -> Response:
        """Let a name mean this rule from now on."""
        return await self._change(request, name, entry)

    async def remove(self, request: Request, name: PolicyName) -> Response:
        """Let a name mean nothing from now on."""
        return await self._change(request, name, None)

    async def explain(self, request: Request, question: Question) -> Response:
        """Tell whether a reservation would be allowed, by which policies, or where each fails; nothing is recorded."""
        identity: Identity = request.state.identity
        if not identity.has(question.project):
            raise Refused(403, "other_project", "the project is not the caller's")
        policies = self._live.policies
        found = explain(policies, self._credentials.projects_of(question.host), Intent(**question.model_dump()))
        denial = found.denial
        return as_json(
            {
                "allowed": denial is None,
                "version": policies.version,
                "allowed_by": found.allowed_by,
                **({"reason": denial.reason, "message": denial.message} if denial else {"reason": "", "message": ""}),
                "policies": [{"name": name, "fails": test} for name, test in found.failed],
            }
        )

    async def _change(self, request: Request, name: str, entry: PolicyEntry | None) -> Response:
        identity: Identity = request.state.identity
        if name.startswith(CONFIGURED):
            raise Refused(409, "configured", "this policy is of central's configuration; change it there")
        rule = entry.rule() if entry is not None else None
        work = partial(policy_rows.change, who=identity, name=name, rule=rule, expected=_expected(request))
        changed = await self._writer.do(work)
        if isinstance(changed, Refused):
            raise changed
        await self._live.follow()
        return as_json(changed.plain(), etag=f'"{changed.version}"')


def _expected(request: Request) -> int | None:
    """Return the version that the caller has seen: 0 for none, None where it does not say."""
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is None and none_match is None:
        return None
    if match is None and none_match == ANY:
        return 0
    found = _VERSION.fullmatch(match or "")
    if found is None or none_match is not None:
        raise Refused(400, "precondition", 'write If-Match: "VERSION" with one version, or If-None-Match: *')
    return int(found["version"])


def _configured(policy: Policy) -> dict[str, Any]:
    return {"name": policy.name, "version": 0, "made_at": None, "by": None, "n": None, "removed": False, **policy.rule.plain()}


def _sees(identity: Identity, project: str) -> bool:
    """Tell whether a policy is the caller's to see: one of its projects, or one that speaks of all."""
    return project == ANY or identity.has(project)
