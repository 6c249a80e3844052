"""What central checks of each event before it is on the log: its sender, its chain, its bytes, its shape and its size."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from prism_vault_agent.audit.event import Chain, canonical, digest, new_id
from tests.central.host import Host, fields


def length(central) -> int:
    """Return how many rows the log has."""
    return len(central.events())


def test_a_host_speaks_for_itself_only(central, host):
    """An event that names another host than the credential's is refused with 403, logged, and not appended (T26)."""
    forged = Chain("server2", new_id()).seal(fields("reserved", new_id()))
    before = length(central)

    answer = host.send(forged)

    assert (answer.status_code, answer.json()["code"]) == (403, "host_mismatch")
    assert length(central) == before
    assert any("host_mismatch" in line and "server1" in line for line in central.log)


@pytest.mark.parametrize("kind", ["success", "failure", "denied", "cleared"])
def test_a_host_ends_its_own_reservations_only(central, host, kind):
    """An event about another host's reservation is refused with 403 and not appended."""
    reservation = host.reserve()
    if kind == "cleared":
        host.end("success", reservation)
    other = Host(central, "server2")

    (result,) = other.batch([other.make(kind, reservation)])

    assert (result["status"], result["reason"], result["appended"]) == (403, "other_host", False)


@pytest.mark.parametrize("kind", ["abandoned", "policy"])
def test_central_s_own_kinds_are_not_taken_from_agents(host, kind):
    """An agent cannot send an event of a kind that only central makes."""
    (result,) = host.batch([host.make(kind, host.reserve())])

    assert (result["status"], result["reason"]) == (403, "kind_not_allowed")


def test_what_a_host_says_of_itself_needs_no_reservation(host):
    """An admin event stands alone, and is the same row when it is sent again."""
    event = host.make("admin")

    first, again = host.batch([event])[0], host.batch([event])[0]

    assert (first["status"], first["appended"]) == (201, True)
    assert (again["status"], again["n"]) == (201, first["n"])


def test_no_host_is_called_central(central):
    """Central's own chain is no agent's: an event of host central is refused."""
    host = Host(central)
    host.chain = Chain("central", new_id())

    assert host.send(host.make("reserved")).status_code == 403


def test_a_break_in_the_chain_is_refused_with_the_expected_head(host):
    """A gap, a step back, a wrong link and a new chain that does not begin at 1 get 409 with where the chain stands."""
    host.reserve()
    head = {"seq": host.chain.seq, "hash": host.chain.head}
    epoch = host.chain.epoch
    wrong = [
        Chain("server1", epoch, seq=2, head=host.chain.head),
        Chain("server1", epoch, seq=0),
        Chain("server1", epoch, seq=1, head="1" * 64),
        Chain("server1", epoch, seq=0, head="1" * 64),
    ]
    for chain in wrong:
        answer = host.send(chain.seal(fields("reserved", new_id())))
        assert (answer.status_code, answer.json()["code"], answer.json()["head"]) == (409, "chain", head)

    answer = host.send(Chain("server1", new_id(), seq=3, head="1" * 64).seal(fields("reserved", new_id())))

    assert answer.json()["head"] == {"seq": 0, "hash": "0" * 64}
    assert host.send(host.make("reserved")).status_code == 201


def test_two_agents_with_one_chain_cannot_both_go_on(central):
    """A cloned machine that continues the same chain is refused with 409 (F97)."""
    original = Host(central)
    original.reserve()
    clone = Host(central)
    clone.chain = Chain("server1", original.chain.epoch, original.chain.seq, original.chain.head)
    original.reserve()

    assert clone.send(clone.make("reserved")).json()["code"] == "chain"


def test_the_head_of_a_host_tells_where_to_go_on(central, host):
    """The head route names the newest epoch with its last sequence number and hash, and nothing of other hosts."""
    host.reserve()

    head = host.client.get("/v1/audit/head").json()

    assert head == {"host": "server1", "epoch": host.chain.epoch, "seq": host.chain.seq, "hash": host.chain.head}
    assert Host(central, "stranger").client.get("/v1/audit/head").json()["seq"] == 0


def test_central_s_own_rows_are_a_chain(central, host):
    """The denials that central makes are chained to each other in an epoch of its own."""
    for _ in range(3):
        host.send(host.make("reserved", purpose="curiosity"))

    own = [row for row in central.events() if row["host_id"] == "central"]

    epoch = [row for row in own if row["host_epoch"] == own[-1]["host_epoch"]]
    assert [row["host_seq"] for row in epoch] == list(range(1, len(epoch) + 1))
    assert [row["prev_hash"] for row in epoch[1:]] == [digest(row["body"].encode()) for row in epoch[:-1]]


def malformed() -> dict[str, bytes]:
    """Return bytes that are no event, by what is wrong with them."""
    good = fields("reserved", new_id())
    chain = Chain("server1", new_id())
    sealed = chain.seal(good)
    event = json.loads(sealed)
    return {
        "empty": b"",
        "not json": b"{",
        "not utf-8": b'{"a":"\xff"}',
        "byte order mark": b"\xef\xbb\xbf" + sealed,
        "an array": b"[]",
        "a space": sealed.replace(b'":', b'": ', 1),
        "keys in another order": json.dumps(dict(reversed(event.items())), separators=(",", ":")).encode(),
        "a key twice": sealed.replace(b'"kind":"reserved"', b'"kind":"reserved","kind":"reserved"'),
        "escaped letters": sealed.replace(b"reserved", b"\\u0072eserved"),
        "a float": canonical(event).replace(b'"v":1', b'"v":1.0'),
        "an exponent": canonical(event).replace(b'"v":1', b'"v":1e0'),
        "not a number": canonical(event).replace(b'"v":1', b'"v":NaN'),
        "a lone surrogate": canonical(event).replace(b"service", b"\\ud800"),
        "a number of 5000 digits": canonical(event).replace(b'"v":1', b'"v":' + b"1" * 5000),
        "nested 100,000 deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "true for 1": chain.seal(good).replace(b'"v":1', b'"v":true'),
        "another version": chain.seal(good).replace(b'"v":1', b'"v":2'),
        "an unknown kind": chain.seal({**good, "kind": "granted"}),
        "a short event id": chain.seal({**good, "event_id": "1"}),
        "an event id in capitals": chain.seal({**good, "event_id": "A" * 32}),
        "a reservation of another shape": chain.seal({**good, "reservation": None}),
        "no scopes": chain.seal({name: value for name, value in good.items() if name != "scopes"}),
        "scopes that are text": chain.seal({**good, "scopes": "web"}),
        "too many scopes": chain.seal({**good, "scopes": ["web"] * 1025}),
        "no project": chain.seal({**good, "project": None}),
        "a long project": chain.seal({**good, "project": "x" * 257}),
        "no caller": chain.seal({**good, "caller": None}),
        "a caller without kind": chain.seal({**good, "caller": {}}),
        "a long run_ref": chain.seal({**good, "run_ref": "x" * 257}),
        "time before 1970": chain.seal({**good, "at": -1}),
    }


@pytest.mark.parametrize("what", sorted(malformed()))
def test_bytes_that_are_no_event_are_refused(central, host, what):
    """Each kind of malformed event gets 400 and leaves the log as it was."""
    before = length(central)

    answer = host.client.post("/v1/audit/reservations", content=malformed()[what])

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed"), answer.text
    assert length(central) == before


def test_an_event_has_at_most_256_kib(host):
    """An event of exactly 256 KiB is taken; one byte more gets 413, alone and in a batch."""
    empty = len(host.make("reserved", bindings=""))
    largest = host.make("reserved", bindings="x" * (256 * 1024 - empty))
    assert len(largest) == 256 * 1024
    assert host.send(largest).status_code == 201
    larger = host.make("reserved", bindings="x" * (256 * 1024 - empty + 1))

    assert host.client.post("/v1/audit/reservations", content=larger).status_code == 413
    assert host.batch([larger])[0]["status"] == 413


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"events":[]}', 400),
        (b'{"events":[1]}', 400),
        (b'{"events":{}}', 400),
        (b'{"events":' + b"[" * 100_000, 400),
        (json.dumps({"events": ["{}"] * 257}).encode(), 413),
        (json.dumps({"events": ["x" * (4 * 1024 * 1024 + 1)]}).encode(), 413),
        (b" " * (8 * 1024 * 1024 + 1), 413),
    ],
)
def test_a_batch_of_another_shape_or_size_is_refused(host, content, status):
    """A batch is an object with 1 to 256 texts, at most 4 MiB."""
    answer = host.client.post("/v1/audit/events:batch", content=content)

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_without_a_length_is_counted_too(host):
    """A chunked body is cut off at the limit like one that names its length."""

    def parts() -> Iterator[bytes]:
        for _ in range(5):
            yield b"x" * 65536

    answer = host.client.post("/v1/audit/reservations", content=parts())

    assert answer.status_code == 413


def test_a_batch_of_256_events_is_taken(host):
    """The largest number of events is taken in one transaction, in order."""
    chain, bodies = Chain("server1", host.chain.epoch), []
    for _ in range(256):
        bodies.append(chain.seal(fields("reserved", new_id())))
        chain.accept(bodies[-1])

    results = host.batch(bodies)

    assert {result["status"] for result in results} == {201}
    assert [result["n"] for result in results] == sorted(result["n"] for result in results)
