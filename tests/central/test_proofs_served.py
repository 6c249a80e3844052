"""What central serves to convince a host: checkpoints, proofs and receipts, on both databases."""

from __future__ import annotations

import base64
import contextlib
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.log.sequencer import SEQUENCER
from prism_vault_agent.central.signing import read_key, write_key
from prism_vault_agent.proof.keys import SigningKey, VerifyingKey
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import leaf_hash, verify_consistency, verify_inclusion
from prism_vault_agent.proof.note import Checkpoint, open_checkpoint
from prism_vault_agent.proof.receipt import check_receipt
from tests.central.host import Host, fields
from tests.proof.trees import Defined
from tests.support.central import CentralProcess
from tests.support.postgres import PostgresServer
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ROUTES = ("/v1/audit/checkpoint", "/v1/audit/proof/1", "/v1/audit/log-key")


def started(directory: Path, server: PostgresServer | None = None, interval: str = "10ms") -> CentralProcess:
    """Return a central, not running yet, that makes checkpoints every ``interval``; those of one server have one key."""
    key = (server.directory if server else directory) / "log.key"
    if not key.exists():
        write_key(key, SigningKey.generate("log.example/one"))
    more = {"log": {"key_file": str(key), "checkpoint_interval": interval}}
    agents = {"server1": ["prism"], "server2": ["prism"], "stranger": ["other"]}
    policies = [
        {"project": "*", "environment": "lan", "scopes": ["web"], "hosts": ["*"], "kinds": ["*"], "purposes": ["service"]},
    ]
    return CentralProcess(
        directory, agents=agents, operators={"other-ops": ["other"]}, policies=policies, server=server, more=more
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def central(request, tmp_path_factory) -> Iterator[CentralProcess]:
    """Return a central on each kind of database."""
    server = request.getfixturevalue("server") if request.param == "postgresql" else None
    with started(tmp_path_factory.mktemp(request.param), server) as running:
        yield running


class Witness:
    """What a host that believes only a key can learn from central's answers. A failed check is an ``IntegrityError``."""

    def __init__(self, central: CentralProcess) -> None:
        self.key: VerifyingKey = read_key(central.key_file).verifying_key
        self.client = Host(central).client

    def ask(self, old: int = 0) -> tuple[Checkpoint, list[bytes]]:
        """Return the newest checkpoint and the proof from ``old`` leaves to it."""
        answer = self.client.get("/v1/audit/checkpoint", params={"from": old})
        assert answer.status_code == 200, answer.text
        checkpoint = self.open(answer.json())
        return checkpoint, [bytes.fromhex(node) for node in answer.json()["proof"]]

    def open(self, answer: dict[str, Any]) -> Checkpoint:
        """Return the checkpoint of an answer."""
        checkpoint = open_checkpoint(answer["note"], self.key.name, self.key)
        assert checkpoint.size == answer["size"]
        return checkpoint

    def cover(self, numbers: Iterable[int]) -> bool:
        """Tell whether there is a proof for each of these rows."""
        return all(self.client.get(f"/v1/audit/proof/{n}").status_code == 200 for n in numbers)

    def included(self, n: int) -> tuple[int, bytes, Checkpoint]:
        """Return index and leaf of a row whose proof verifies, and the checkpoint."""
        answer = self.client.get(f"/v1/audit/proof/{n}").json()
        checkpoint = self.open(answer)
        leaf, proof = bytes.fromhex(answer["leaf"]), [bytes.fromhex(node) for node in answer["proof"]]
        assert answer["n"] == n
        assert verify_inclusion(leaf, answer["index"], checkpoint.size, proof, checkpoint.root)
        return answer["index"], leaf, checkpoint

    def included_in(self, size: int, n: int) -> tuple[int, dict[str, Any]]:
        """Return status and answer to the question for the proof in the tree of the first ``size`` leaves."""
        answer = self.client.get(f"/v1/audit/proof/{n}", params={"size": size})
        return answer.status_code, answer.json()

    def believes(self, receipt: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Raise ``IntegrityError`` unless the receipt is for exactly the rows of these answers."""
        leaves = [(row["n"], bytes.fromhex(row["leaf"])) for row in rows]
        check_receipt(self.key, base64.b64decode(receipt["signature"]), receipt["origin"], receipt["at"], leaves)


@settings(
    max_examples=count(4, 25),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches=st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_after_every_append_every_proof_verifies(central, batches):
    """Whatever is appended: its receipt verifies, the new checkpoint extends all earlier ones, and every row is proved in it."""
    witness = Witness(central)
    seen: list[Checkpoint] = []
    leaves: dict[int, bytes] = {}
    for size in batches:
        host = Host(central)
        bodies = []
        chain = host.chain
        for _ in range(size):
            bodies.append(chain.seal(fields("denied", new_id())))
            chain.accept(bodies[-1])
        answer = host.client.post("/v1/audit/events:batch", json={"events": [body.decode() for body in bodies]}).json()
        witness.believes(answer["receipt"], answer["results"])
        leaves |= {row["n"]: bytes.fromhex(row["leaf"]) for row in answer["results"]}
        wait_until(partial(witness.cover, leaves))
        for old in seen:
            newer, proof = witness.ask(old.size)
            assert verify_consistency(old.size, old.root, newer.size, newer.root, proof)
        seen.append(witness.ask()[0])
        assert all(witness.included(n)[1] == leaf for n, leaf in leaves.items())
    ordered = sorted((witness.included(event["n"])[0], event) for event in central.events())
    hashes = [leaf_hash(leaf_data(row["n"], row["received_at"], row["body"].encode())) for _, row in ordered]

    assert [index for index, _ in ordered] == list(range(len(ordered)))
    assert Defined(hashes).root(0, len(hashes)) == witness.ask()[0].root


def test_every_answer_that_appends_has_its_receipt(central):
    """A reservation, its end and a denial by policy each get a receipt for their row; an event sent again gets one too."""
    witness, host = Witness(central), Host(central)
    reserved = host.make("reserved")
    first, again = host.send(reserved).json(), host.client.post("/v1/audit/reservations", content=reserved).json()
    ended = host.end("success", host.reserve()).json()
    denied = host.send(host.make("reserved", scopes=["db"]))

    assert denied.status_code == 403
    assert (first["n"], first["leaf"]) == (again["n"], again["leaf"])
    for answer in (first, again, ended, denied.json()):
        witness.believes(answer["receipt"], [answer])


def test_what_is_refused_has_no_receipt(central):
    """A batch's receipt is for its appended rows alone; where nothing was appended it is null."""
    witness, host = Witness(central), Host(central)
    good = host.make("denied")
    answer = host.client.post("/v1/audit/events:batch", json={"events": [good.decode(), "{}", good.decode()]}).json()
    refused = host.client.post("/v1/audit/events:batch", json={"events": ["{}"]}).json()
    single = host.end("success", new_id())

    assert [row["appended"] for row in answer["results"]] == [True, False, False]
    witness.believes(answer["receipt"], answer["results"][:1])
    assert refused["receipt"] is None
    assert single.status_code == 409
    assert single.json()["receipt"] is None


def test_from_says_which_proof_is_wanted(central):
    """From nothing or the same size there is nothing to prove; a size that is no number of leaves is a wrong question."""
    witness, host = Witness(central), Host(central)
    wait_until(partial(witness.cover, (host.send(host.make("reserved")).json()["n"],)))
    size = witness.ask()[0].size
    for wrong in ("-1", "x", str(2**63)):
        answer = witness.client.get("/v1/audit/checkpoint", params={"from": wrong})
        assert (answer.status_code, answer.json()["code"]) == (400, "query")

    assert witness.client.get("/v1/audit/checkpoint").json()["proof"] == []
    assert witness.ask(0)[1] == []
    assert witness.ask(size)[1] == []


def test_a_row_is_proved_in_the_tree_that_a_host_holds(central):
    """With ``size`` a row is proved in the tree of that size; where it is not in that tree, or there is none, it waits."""
    witness, host = Witness(central), Host(central)
    n = host.send(host.make("reserved")).json()["n"]
    wait_until(partial(witness.cover, (n,)))
    held = witness.ask()[0]
    index, leaf, _ = witness.included(n)
    later = host.send(host.make("reserved")).json()["n"]
    wait_until(partial(witness.cover, (later,)))
    status, answer = witness.included_in(held.size, n)
    proof = [bytes.fromhex(node) for node in answer["proof"]]

    assert (status, answer["size"], answer["note"]) == (200, held.size, None)
    assert verify_inclusion(leaf, answer["index"], held.size, proof, held.root)
    for size, number in ((index, n), (held.size, later), (held.size + 10**6, n)):
        status, answer = witness.included_in(size, number)
        assert (status, answer["code"]) == (404, "not_sequenced") if size else (400, "query")
    assert witness.included_in(held.size, 2**62)[1]["code"] == "no_such_event"


def test_a_host_that_knows_a_larger_log_is_told(central):
    """From more leaves than the log has: 409 ``ahead`` with the newest checkpoint, which is what a rolled-back log looks like."""
    witness, host = Witness(central), Host(central)
    wait_until(partial(witness.cover, (host.send(host.make("reserved")).json()["n"],)))
    answer = witness.client.get("/v1/audit/checkpoint", params={"from": 10**9})

    assert (answer.status_code, answer.json()["code"]) == (409, "ahead")
    assert witness.open(answer.json()).size < 10**9


def test_whoever_has_a_credential_may_ask(central):
    """The routes answer agents and operators of any project alike, and nobody without a credential."""
    host = Host(central)
    n = host.send(host.make("reserved")).json()["n"]
    witness = Witness(central)
    wait_until(partial(witness.cover, (n,)))
    known = (central.agent_tokens["server2"], central.agent_tokens["stranger"], central.operator_tokens["other-ops"])
    for route in ROUTES:
        path = route.replace("/proof/1", f"/proof/{n}")
        for token in known:
            with central.client(token) as client:
                assert client.get(path).status_code == 200
        with central.client("nobody") as client:
            assert client.get(path).status_code == 401

    assert witness.client.get("/v1/audit/log-key").json() == {"key": str(witness.key)}


def test_an_event_that_is_not_there_has_no_proof(central):
    """404 ``no_such_event`` for a number that no event has, 400 for what is no number."""
    client = Host(central).client
    absent, wrong = client.get("/v1/audit/proof/999999999"), client.get("/v1/audit/proof/one")

    assert (absent.status_code, absent.json()["code"]) == (404, "no_such_event")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "query")


def test_a_log_without_rows_has_no_checkpoint(tmp_path):
    """404 ``no_checkpoint`` before the first row; a host that knows of rows is told ``ahead`` all the same."""
    with started(tmp_path) as central:
        client = Host(central).client
        none, ahead = client.get("/v1/audit/checkpoint"), client.get("/v1/audit/checkpoint", params={"from": 3})

    assert (none.status_code, none.json()["code"], none.headers["retry-after"]) == (404, "no_checkpoint", "1")
    assert (ahead.status_code, ahead.json()["code"]) == (409, "ahead")
    assert (ahead.json()["size"], ahead.json()["note"]) == (0, None)


@pytest.mark.tool("initdb")
def test_an_event_that_waits_for_its_leaf_is_told_apart(tmp_path, server):
    """While nobody can sequence, 404 ``not_sequenced`` says when to ask again; afterwards there is the proof."""
    with started(tmp_path, server) as central, psycopg.connect(server.owner_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (SEQUENCER,))
        host = Host(central)
        n = host.send(host.make("reserved")).json()["n"]
        waits = host.client.get(f"/v1/audit/proof/{n}")
        other.execute("SELECT pg_advisory_unlock(%s)", (SEQUENCER,))
        wait_until(lambda: host.client.get(f"/v1/audit/proof/{n}").status_code == 200)

    assert (waits.status_code, waits.json()["code"], waits.headers["retry-after"]) == (404, "not_sequenced", "1")


@pytest.mark.tool("initdb")
def test_no_replica_denies_what_another_has_signed(tmp_path_factory, server):
    """A checkpoint of one replica is known to the other at once: it proves growth from it and never says ``ahead``."""
    one, two = (started(tmp_path_factory.mktemp("replica"), server, "500ms") for _ in range(2))
    with one, two:
        witness, other, host = Witness(one), Witness(two), Host(one)
        for _ in range(count(4, 50)):
            n = host.send(host.make("reserved")).json()["n"]
            wait_until(partial(witness.cover, (n,)))
            old = witness.ask()[0]
            newer, proof = other.ask(old.size)
            assert newer.size >= old.size
            assert newer == old or verify_consistency(old.size, old.root, newer.size, newer.root, proof)


def test_a_tree_that_is_not_whole_is_said_to_be_so(tmp_path):
    """Where a stored hash is gone, proofs that need it are refused with 500 ``integrity``, and central's log says it."""
    with started(tmp_path) as central:
        host = Host(central)
        rows = host.batch([host.make("denied")]) + host.batch([host.make("denied")])
        wait_until(partial(Witness(central).cover, (rows[-1]["n"],)))
        with contextlib.closing(sqlite3.connect(central.database)) as database, database:
            database.execute("DROP TRIGGER leaf_no_delete")
            database.execute("DELETE FROM leaf WHERE idx = 0")
        answer = host.client.get(f"/v1/audit/proof/{rows[-1]['n']}")

    assert (answer.status_code, answer.json()["code"]) == (500, "integrity")
    assert any('"code": "integrity"' in line for line in central.log)
