"""What a caller of one project reads: of another project nothing, by any route, over HTTP, on both databases."""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.access.permission import NEEDS, SCOPES
from tests.central.access import RULE, made, put
from tests.central.host import Host
from tests.support.agent import LAUNCHER
from tests.support.central import ALLOW_ALL, CentralProcess
from tests.support.stream import Following
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx2

MARK = f"mark{secrets.token_hex(4)}"  # in every name of project theirs
HOSTS = {f"{MARK}-host": ["theirs"], "host": ["ours"]}
OPERATORS = {f"{MARK}-ops": ["theirs"], "ops": ["ours"]}


@dataclass
class Filled:
    """A central whose project ``theirs`` has one of everything, and what must not be seen of it besides names with MARK."""

    central: CentralProcess
    events: list[dict[str, Any]]
    orders: dict[str, int]
    narrow: str

    @property
    def hidden(self) -> list[str]:
        """Texts that are in rows of the other project only."""
        ids = [event[name] for event in self.events for name in ("event_id", "reservation_id")]
        return [MARK, *ids]

    @property
    def n(self) -> int:
        """The index of a row of the other project."""
        return int(self.events[0]["n"])

    @property
    def callers(self) -> dict[str, str]:
        """Tokens of project ours: of its host, its operator of the configuration, and one that central has made."""
        tokens = self.central
        return {"host": tokens.agent_tokens["host"], "operator": tokens.operator_tokens["ops"], "narrow": self.narrow}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request, tmp_path_factory) -> Iterator[Filled]:
    """Return a central on each kind of database with rows, orders, policies and tokens of two projects."""
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    directory = tmp_path_factory.mktemp(request.param)
    policies = [{**ALLOW_ALL[0], "project": "ours"}, {**ALLOW_ALL[0], "project": "theirs", "scopes": [f"{MARK}-scope"]}]
    with CentralProcess(directory, agents=HOSTS, operators=OPERATORS, policies=policies, server=server) as central:
        theirs, owner = Host(central, f"{MARK}-host"), central.operator_tokens[f"{MARK}-ops"]
        about: dict[str, Any] = {"project": "theirs", "scopes": [f"{MARK}-scope"], "run_ref": f"{MARK}-run"}
        reservation = theirs.reserve(**about, purpose=f"{MARK}-purpose")
        theirs.end("success", reservation, **about)
        theirs.send(theirs.make("reserved", **{**about, "scopes": [f"{MARK}-denied"]}, purpose=f"{MARK}-purpose"))
        Host(central, "host").reserve(project="ours", scopes=["own"])
        put(central, f"{MARK}-policy", by=owner, project="theirs", scopes=[f"{MARK}-scope"])
        made(central, owner, name=f"{MARK}-token", projects=["theirs"])
        orders = {what: order(central, what, owner, scope=f"{MARK}-scope") for what in ("rotations", "revocations")}
        narrow = made(central, projects=["ours"], name="narrow", scopes=sorted(SCOPES["operator"]))["token"]
        rows = [event for event in central.events() if event["fields"].get("project") == "theirs"]
        with central.client() as client:
            wait_until(lambda: client.get(f"/v1/audit/proof/{rows[-1]['n']}").status_code == 200)
        yield Filled(central, rows, orders, narrow)


def order(central: CentralProcess, what: str, token: str | None = None, **asked: Any) -> int:
    """Order a rotation or a revocation and return the id of its signal."""
    with central.client(token) as client:
        answer = client.post(f"/v1/{what}", json={"id": new_id(), "reason": f"{MARK}-why", **asked})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def pages(client: httpx2.Client, path: str, **query: Any) -> str:
    """Return the text of an answer, which is one of the route's good ones."""
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.text


def events(client: httpx2.Client, filled: Filled) -> str:
    """Ask for events in every way: all, the newest, and by each name and number of the other project's."""
    row = filled.events[0]
    named = {"scope": f"{MARK}-scope", "host": f"{MARK}-host", "run_ref": f"{MARK}-run", "purpose": f"{MARK}-purpose"}
    asked: list[dict[str, Any]] = [
        {},
        {"last": 1000},
        {"kind": "success"},
        {"outcome": "denied"},
        {"reservation": row["reservation_id"]},
        {"since": 0},
    ]
    asked += [{name: value} for name, value in named.items()]
    asked += [{"after": row["n"] - 1, "limit": 1}]
    return "".join(pages(client, "/v1/audit/events", **query) for query in asked)


def log(client: httpx2.Client, _filled: Filled) -> str:
    """Ask for the log from its beginning, its newest rows, and each row alone."""
    size = client.get("/v1/audit/log").json()["size"]
    asked: list[dict[str, Any]] = [{}, {"last": 1000}, *({"from": at, "limit": 1} for at in range(size))]
    return "".join(pages(client, "/v1/audit/log", **query) for query in asked)


def policies(client: httpx2.Client, _filled: Filled) -> str:
    """Ask for the policies as they are and as they were."""
    version = client.get("/v1/policies").json()["version"]
    return "".join(pages(client, "/v1/policies", version=at) for at in range(version + 1))


def policy(client: httpx2.Client, _filled: Filled) -> str:
    """Ask for the other project's policies, of the rows and of the configuration."""
    return "".join(told(client.get(f"/v1/policies/{name}")) for name in (f"{MARK}-policy", "config:2"))


def explain(client: httpx2.Client, _filled: Filled) -> str:
    """Ask why the other project's scope is allowed, as theirs and as ours."""
    question = {"host": "host", "environment": "lan", "scopes": ["a"], "kind": "service", "purpose": "b"}
    return "".join(
        told(client.post("/v1/policies:explain", json={**question, "project": project})) for project in ("ours", "theirs")
    )


def revocation(client: httpx2.Client, filled: Filled) -> str:
    """Ask for each signal as a revocation."""
    return "".join(told(client.get(f"/v1/revocations/{number}")) for number in filled.orders.values())


def proof(client: httpx2.Client, filled: Filled) -> str:
    """Ask for the proof of each row."""
    return "".join(pages(client, f"/v1/audit/proof/{event['n']}") for event in filled.events)


def one(path: str) -> Callable[[httpx2.Client, Filled], str]:
    """Ask for a path."""
    return lambda client, _filled: told(client.get(path))


def told(answer: httpx2.Response) -> str:
    """Return what an answer tells, but for what the request itself has said and its id."""
    content = answer.json()
    if answer.status_code >= 400:
        content.pop("request_id")
    return json.dumps(content)


def signals(client: httpx2.Client, filled: Filled) -> str:
    """Follow the stream from its beginning until a signal for all comes."""
    with Following(filled.central, client.headers["authorization"].removeprefix("Bearer "), query="?after=0") as following:
        marker = order(filled.central, "rotations", everything=True, reason="for all")
        wait_until(lambda: marker in following.ids)
        return json.dumps([event.data for event in following.events])


READS: dict[tuple[str, str], Callable[[httpx2.Client, Filled], str]] = {
    ("GET", "/v1/audit/events"): events,
    ("GET", "/v1/audit/log"): log,
    ("GET", "/v1/audit/head"): one("/v1/audit/head"),
    ("GET", "/v1/audit/checkpoint"): one("/v1/audit/checkpoint"),
    ("GET", "/v1/audit/proof/{n}"): proof,
    ("GET", "/v1/audit/log-key"): one("/v1/audit/log-key"),
    ("GET", "/v1/policies"): policies,
    ("GET", "/v1/policies/{name}"): policy,
    ("POST", "/v1/policies:explain"): explain,
    ("GET", "/v1/tokens"): one("/v1/tokens"),
    ("GET", "/v1/signals"): signals,
    ("GET", "/v1/revocations"): one("/v1/revocations"),
    ("GET", "/v1/revocations/{id}"): revocation,
}
HASHES_ONLY = {"/v1/audit/head", "/v1/audit/checkpoint", "/v1/audit/proof/{n}", "/v1/audit/log-key"}


def test_every_reading_route_is_asked():
    """Each route of the table that tells something about the log, policies, tokens or orders is among those tried here."""
    reading = {route for route, need in NEEDS.items() if need is not None and need.scope.endswith(":read")}

    assert READS.keys() == reading - {("GET", "/metrics")}  # names nobody: test_metrics.py


@pytest.mark.parametrize(("method", "path"), READS)
def test_nothing_of_another_project_is_read(filled, method, path):
    """The host, the operator and a made token of one project see no name and no id of another's; who sees all, does."""
    read = READS[method, path]
    for name, token in filled.callers.items():
        need = NEEDS[method, path]
        assert need is not None
        if ("agent" if name == "host" else "operator") in need.roles:
            with filled.central.client(token) as client:
                text = read(client, filled)
            assert [hidden for hidden in filled.hidden if hidden in text] == []
    if path not in HASHES_ONLY:
        with filled.central.client() as everything:
            assert MARK in read(everything, filled)


def test_what_is_waited_for_is_not_another_projects(filled):
    """A reader that waits for the next row is not woken with one of another project, and is with one of its own."""
    with filled.central.client(filled.narrow) as client:
        size = client.get("/v1/audit/log").json()["size"]
        found: list[dict[str, Any]] = []

        def wait() -> None:
            while not found:
                answer = client.get("/v1/audit/log", params={"from": size, "wait": 20}).json()
                found.extend(answer["rows"])

        waiting = threading.Thread(target=wait)
        waiting.start()
        theirs = Host(filled.central, f"{MARK}-host")
        theirs.reserve(project="theirs", scopes=[f"{MARK}-scope"])
        with filled.central.client() as everything:
            wait_until(lambda: everything.get("/v1/audit/log", params={"from": size}).json()["rows"])
        own = Host(filled.central, "host").reserve(project="ours", scopes=["own"])
        waiting.join(60)

    assert [row["reservation_id"] for row in found] == [own]


def test_a_proof_of_another_projects_row_is_hashes(filled):
    """Any caller gets the proof of any row: its place and hashes, which bind an id of 74 random bits, and no field of it."""
    with filled.central.client(filled.narrow) as client:
        answer = client.get(f"/v1/audit/proof/{filled.n}").json()

    assert set(answer) == {"n", "index", "leaf", "size", "note", "proof"}


@pytest.mark.parametrize("made_by", ["ops", "narrow"])
def test_nothing_of_another_project_is_changed(filled, made_by):
    """An operator of one project changes no policy, makes no token, revokes none and orders nothing of another."""
    token = filled.callers["operator" if made_by == "ops" else "narrow"]
    rule = {**RULE, "project": "theirs"}
    with filled.central.client(token) as client:
        answers = [
            client.put(f"/v1/policies/{MARK}-policy", json=rule),
            client.put(f"/v1/policies/{MARK}-policy", json={**rule, "project": "ours"}),
            client.delete(f"/v1/policies/{MARK}-policy"),
            client.post("/v1/tokens", json={"name": f"t-{made_by}", "role": "operator", "projects": ["theirs"], "expires_in": 9}),
            client.delete(f"/v1/tokens/{MARK}-token"),
            *(
                client.post(f"/v1/{what}", json={"id": new_id(), "everything": True, "project": "theirs"})
                for what in ("rotations", "revocations")
            ),
        ]

    assert [answer.status_code for answer in answers] == [403] * 7
    assert {answer.json()["code"] for answer in answers} <= {"other_project", "beyond_own"}


@pytest.mark.parametrize(
    ("words", "status"), [(("export",), 77), (("tail", "--json"), 0), (("find", "--scope", f"{MARK}-scope", "--json"), 0)]
)
def test_the_commands_show_nothing_of_another_project(filled, words, status):
    """As an operator of one project, ``audit tail`` and ``find`` give none of another's rows, and ``export`` says whose it is."""
    done = audit(filled, *words)

    assert done.returncode == status, done
    assert [hidden for hidden in filled.hidden if hidden in done.stdout] == []


def test_show_finds_nothing_of_another_project(filled):
    """``audit show`` of another project's audit id says that there is none, as of an id that never was: 66."""
    theirs, nobody = f"pva_{filled.events[0]['reservation_id']}", f"pva_{new_id()}"
    ends = [audit(filled, "show", each) for each in (theirs, nobody)]

    assert [(done.returncode, done.stdout) for done in ends] == [(66, ""), (66, "")]
    assert ends[0].stderr.replace(theirs, "ID") == ends[1].stderr.replace(nobody, "ID")


def audit(filled: Filled, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``prism-vault audit`` as the operator of project ours."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "PRISM_VAULT_CENTRAL_URL": filled.central.url,
        "PRISM_VAULT_OPERATOR_TOKEN": filled.central.operator_tokens["ops"],
    }
    return subprocess.run([LAUNCHER, "audit", *words], env=environment, capture_output=True, text=True, check=False, timeout=60)
