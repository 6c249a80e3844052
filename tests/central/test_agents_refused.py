"""What only operators may do or see, asked for by a host with a true identity token: refused, without effect, on record."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.access.permission import NEEDS
from prism_vault_agent.central.access.refusals import AGAIN_AFTER, MOST, Refusals
from prism_vault_agent.central.log.store import StorageError
from tests.central.access import RULE, made, put
from tests.central.host import OPEN, Host
from tests.central.provider import Provider
from tests.central.test_permission import CLAIMS
from tests.support.central import CentralProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2

QUESTION = {"host": "server1", "project": "prism", "environment": "lan", "scopes": ["web"], "kind": "service", "purpose": "x"}
TOKEN = {"name": "mine", "role": "operator", "projects": ["*"], "expires_in": None}
ASKED: dict[tuple[str, str], tuple[str, Any]] = {
    ("GET", "/metrics"): ("/metrics", None),
    ("GET", "/v1/policies"): ("/v1/policies", None),
    ("POST", "/v1/policies:explain"): ("/v1/policies:explain", QUESTION),
    ("GET", "/v1/policies/{name}"): ("/v1/policies/kept", None),
    ("PUT", "/v1/policies/{name}"): ("/v1/policies/kept", {**RULE, "scopes": ["*"]}),
    ("DELETE", "/v1/policies/{name}"): ("/v1/policies/kept", None),
    ("GET", "/v1/tokens"): ("/v1/tokens", None),
    ("POST", "/v1/tokens"): ("/v1/tokens", TOKEN),
    ("DELETE", "/v1/tokens/{name}"): ("/v1/tokens/kept", None),
    ("POST", "/v1/rotations"): ("/v1/rotations", {"id": new_id(), "everything": True}),
    ("POST", "/v1/revocations"): ("/v1/revocations", {"id": new_id(), "everything": True, "emergency": True}),
    ("GET", "/v1/revocations"): ("/v1/revocations", None),
    ("GET", "/v1/revocations/{id}"): ("/v1/revocations/1", None),
}
WRITES = [f"{method} {path}" for (method, path) in ASKED if NEEDS[method, path].audited]  # type: ignore[union-attr] # none is open


@pytest.fixture(scope="module")
def provider(login) -> Provider:
    return Provider(login)


@pytest.fixture(scope="module")
def central(provider, tmp_path_factory) -> Iterator[CentralProcess]:
    """Return a central with a policy, a token and a revocation, which knows server1 by its identity token, for all projects."""
    subjects = [{"subject": provider.login.entity, "host": "server1", "projects": ["*"]}]
    with CentralProcess(tmp_path_factory.mktemp("central"), issuer=provider.settings, subjects=subjects) as running:
        put(running, "kept")
        made(running, name="kept")
        with running.client() as operator:
            operator.post("/v1/revocations", json={"id": new_id(), "scope": "nothing"}).raise_for_status()
        yield running


@pytest.fixture
def agent(central, provider) -> httpx2.Client:
    """Return a client with an identity token of server1, whose requests come from elsewhere."""
    client: httpx2.Client = central.client(provider.mint())
    client.headers |= {**CLAIMS, "X-Forwarded-For": "192.0.2.1"}
    OPEN.append(client)
    return client


def refused_rows(central: CentralProcess) -> list[dict[str, Any]]:
    """Return what the log says of refused attempts."""
    return [event["fields"] for event in central.events(kind="admin") if event["fields"]["reason"] == "refused"]


def ask(client: httpx2.Client, method: str, path: str) -> tuple[int, str]:
    """Send a whole, well-formed request; return the status and the code of the answer."""
    filled, body = ASKED[method, path]
    answer = client.request(method, filled, json=body)
    return answer.status_code, str(answer.json().get("code", ""))


def test_all_routes_of_operators_are_asked():
    """Each route of the table that only operators may use is among those that are tried here; the ones that write are audited."""
    assert ASKED.keys() == {route for route, need in NEEDS.items() if need is not None and need.roles == {"operator"}}
    assert len(WRITES) == 6
    assert all(need.audited == need.scope.endswith(":write") for need in map(NEEDS.get, ASKED) if need is not None)


def test_an_identity_token_opens_no_route_of_operators(central, agent):
    """A host of all projects gets 403 role from each, whatever its headers claim; no policy, token, order or row is another."""

    def everything() -> list[Any]:
        with central.client() as operator:
            told = [operator.get(path).json() for path in ("/v1/policies", "/v1/tokens", "/v1/revocations")]
        return [*told, [event for event in central.events() if event["fields"].get("reason") != "refused"]]

    before = everything()
    answers = {route: ask(agent, *route) for route in ASKED}

    assert answers == dict.fromkeys(ASKED, (403, "role"))
    assert everything() == before


def test_a_refused_change_is_on_the_record_once(central, agent):
    """Who tried which change is one row of the log for each route, however often it is tried, with the credential's caller."""
    for _ in range(3):
        for route in ASKED:
            ask(agent, *route)
    rows = refused_rows(central)

    assert sorted(row["message"] for row in rows) == sorted(f"{write} by the agent of server1: role" for write in WRITES)
    assert {(row["by"]["by"], row["about_host"], row["host"], row["project"]) for row in rows} == {
        ("identity_token", "server1", "central", None)
    }


def test_a_token_without_the_scope_is_on_the_record_too(central):
    """An operator's token that may only read policies changes none, and the log says that it tried."""
    token = made(central, scopes=["policy:read"])
    with central.client(token["token"]) as reader:
        assert ask(reader, "DELETE", "/v1/policies/{name}") == (403, "insufficient_scope")
        assert reader.get("/v1/policies").status_code == 200
    told = [row["message"] for row in refused_rows(central) if row["by"]["name"] == token["name"]]

    assert told == [f"DELETE /v1/policies/{{name}} by operator {token['name']}: insufficient_scope"]


@pytest.mark.parametrize("kind", ["policy", "abandoned"])
def test_an_agent_appends_no_row_of_centrals(central, provider, kind):
    """A host's event that says to be a policy, or central's own, is refused and not on the log."""
    host = Host(central, token=provider.mint())
    (result,) = host.batch([host.make(kind, reason="x", policy={"name": "kept"})])

    assert (result["status"], result["reason"], result["appended"]) == (403, "kind_not_allowed", False)


def test_a_reservation_of_a_worker_changes_no_policy(central, provider):
    """What a worker or agent reserves for, with any field it likes, leaves the policies as they are."""
    with central.client() as operator:
        before = operator.get("/v1/policies").json()
        host = Host(central, token=provider.mint())
        more: dict[str, Any] = {
            "policy": {"name": "kept", "scopes": ["*"]},
            "token": TOKEN,
            "by": {"name": "ops", "by": "database"},
        }
        for caller, given in (("worker", {"job_id": "j"}), ("agent", {"run_ref": "r"})):
            host.reserve(caller={"kind": caller, "uid": 1}, **given, **more)

        assert operator.get("/v1/policies").json() == before


def test_a_refusal_that_could_not_be_recorded_is_tried_again():
    """Where the log does not take it, the next attempt is recorded; then none for a minute, of each caller and route."""
    written: list[str] = []
    failing = [True]
    clock = [0.0]

    class Writer:
        async def do(self, work: Any) -> None:
            if failing[0]:
                raise StorageError("away")
            written.append(json.dumps([work.keywords["who"].name, work.keywords["what"]]))

    async def script() -> None:
        refusals = Refusals(Writer(), lambda: clock[0])  # type: ignore[arg-type] # a writer whose disk fails when it shall
        one, two = (Identity(name, "agent", name, frozenset()) for name in ("one", "two"))
        await refusals.record(one, "PUT", "role")
        failing[0] = False
        for now in (0.0, AGAIN_AFTER - 1, AGAIN_AFTER):
            clock[0] = now
            await asyncio.gather(*(refusals.record(who, what, "role") for who in (one, two) for what in ("PUT", "POST") * 3))

    asyncio.run(script())

    assert len(written) == 8
    assert len(set(written)) == 4


def test_who_is_refused_under_many_names_does_not_fill_the_log():
    """Within a minute a thousand refusals are recorded and remembered, whatever their names; afterwards as many again."""
    written: list[str] = []
    clock = [0.0]

    class Writer:
        async def do(self, work: Any) -> None:
            written.append(work.keywords["what"])

    async def script() -> None:
        refusals = Refusals(Writer(), lambda: clock[0])  # type: ignore[arg-type] # as above
        one = Identity("one", "agent", "one", frozenset())
        for clock[0] in (0.0, AGAIN_AFTER):
            for number in range(MOST + 100):
                await refusals.record(one, f"a release of installation {number}", "name_held")

    asyncio.run(script())

    assert len(written) == 2 * MOST
