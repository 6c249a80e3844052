"""Who may use which route: one table, which every route of central is in, and nothing that a caller says about itself."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi import FastAPI

from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.access.permission import NEEDS, OPEN, SCOPES, Refused, needs, permit
from prism_vault_agent.central.http.door import Door
from prism_vault_agent.central.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp

EVERY_SCOPE = sorted(set().union(*SCOPES.values()))
CLOSED = {route: need for route, need in NEEDS.items() if need is not OPEN}


def filled(path: str) -> str:
    """Return a path with something in its places."""
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


def test_every_described_route_is_in_the_table(central):
    """Each method of each path of the OpenAPI document says in the table what it needs."""
    with central.client(token="none") as client:
        paths = client.get("/openapi.json").json()["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods if method != "parameters"}

    assert described - NEEDS.keys() == set()


@pytest.mark.parametrize(("method", "path"), NEEDS)
def test_each_path_is_found(method, path):
    """The table answers for a path as it is asked for, and for none below or above it."""
    assert needs(filled(path))[method] == NEEDS[method, path]
    for other in (f"{filled(path)}/", f"{filled(path)}/more/of/it", f"/{filled(path)}"):
        assert needs(other) == {}


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_a_route_needs_its_role_and_its_scope(method, path):
    """With one scope each, a caller passes exactly where the route asks for its role and that scope or the one to write."""
    need = CLOSED[method, path]
    passed, refused = set(), set()
    for role, scope in product(SCOPES, EVERY_SCOPE):
        try:
            permit(Identity("x", role, "", frozenset({"*"}), frozenset({scope})), need)
            passed.add((role, scope))
        except Refused as error:
            refused.add((role in need.roles, error.reason))
    enough = {need.scope, need.scope.replace(":read", ":write")} & set(EVERY_SCOPE)

    assert passed == set(product(need.roles, enough))
    assert refused <= {(True, "insufficient_scope"), (False, "role")}
    assert all(need.scope in SCOPES[role] for role in need.roles)


@pytest.mark.parametrize(("method", "path"), [route for route, need in CLOSED.items() if not need.loopback])
def test_without_a_credential_no_closed_route_answers(central, method, path):
    """Every route but the open ones asks who calls before anything else."""
    with central.client() as client:
        del client.headers["authorization"]
        answer = client.request(method, filled(path))

    assert (answer.status_code, answer.json()["code"]) == (401, "no_credential")


@pytest.mark.parametrize(("method", "path"), [route for route, need in CLOSED.items() if need.roles == {"operator"}])
def test_an_agent_uses_no_route_of_operators(central, host, method, path):
    """What is an operator's to do or see is refused to the agent of a host, and the other way round."""
    if not CLOSED[method, path].loopback:
        assert host.client.request(method, filled(path)).json()["code"] == "role"


@pytest.mark.parametrize(("method", "path"), [route for route, need in CLOSED.items() if need.roles == {"agent"}])
def test_an_operator_uses_no_route_of_agents(central, method, path):
    """What is the agent's of a host is refused to an operator of everything."""
    with central.client() as client:
        answer = client.request(method, filled(path))

    assert (answer.status_code, answer.json()["code"]) == (403, "role")


def _door(app: ASGIApp) -> Door:
    """Return the door before an application, for requests that need nothing else."""
    nobody: Any = None
    return Door(app, nobody, nobody, nobody, Metrics("sqlite"), refusals=nobody, waited_for=())


def test_a_route_that_was_forgotten_is_not_served():
    """A route that an application has and the table has not gets 404, so forgetting it opens nothing."""
    app = FastAPI()
    app.add_api_route("/v1/audit/everything", lambda: {"told": "all"})

    async def ask() -> httpx2.Response:
        door = _door(app)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(door), base_url="http://central") as client:
            return await client.get("/v1/audit/everything")

    answer = asyncio.run(ask())

    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_route")


def test_another_method_is_told_which_there_are(central):
    """A method that a route does not have gets 405 and the ones that it has, whoever asks."""
    with central.client(token="none") as client:
        answer = client.put("/v1/audit/events")

    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "method", "GET")


CLAIMS = {
    "X-Prism-Host": "server2",
    "X-PRISM-Role": "operator",
    "x-prism-projects": "*",
    "X-Prism-Identity": "prism-ops",
    "X-Prism-Scopes": "audit:append",
}


def test_headers_that_claim_an_identity_change_nothing(central, host):
    """With every x-prism- header that says more than the credential, each answer is the one without them."""
    with central.client("none") as nobody, central.client(central.operator_tokens["other-ops"]) as other:
        for client, path in (
            (host.client, "/v1/audit/head"),
            (host.client, "/v1/audit/events"),
            (other, "/v1/audit/events"),
            (other, "/v1/audit/head"),
            (nobody, "/v1/audit/events"),
        ):
            plain, claiming = client.get(path), client.get(path, headers=CLAIMS)

            assert claiming.status_code == plain.status_code
            assert {**claiming.json(), "request_id": ""} == {**plain.json(), "request_id": ""}


def test_nobody_behind_the_door_sees_a_claim():
    """The headers that name an identity are gone before a route sees the request; others are there."""
    seen: list[str] = []

    async def app(scope, _receive, send) -> None:
        seen.extend(name.decode() for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask() -> None:
        door = _door(app)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(door), base_url="http://central") as client:
            await client.get("/healthz", headers={**CLAIMS, "X-Other": "kept"})

    asyncio.run(ask())

    assert "x-other" in seen
    assert not [name for name in seen if name.startswith("x-prism")]
