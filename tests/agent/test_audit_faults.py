"""Faults between a real agent and a real central: nothing is released, and nothing read, without its row; each has one end."""

from __future__ import annotations

import itertools
import json
import secrets
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.audit import rows as audit_rows
from prism_vault_agent.audit.event import Chain, new_id
from tests.audit.nouns import grant, reservation
from tests.support import history
from tests.support.certificates import Tls
from tests.support.fake_server import FakeServer
from tests.support.fake_server import always as answering
from tests.support.fault_proxy import Fault, Seen, always, response, times, with_kind
from tests.support.stack import Stack, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fault_proxy import Way

HOWS: dict[str, tuple[Way, int]] = {"timeout": ("hang", 0), "reset": ("reset", 0), "503": ("answer", 503)}
STEPS = ("reserved", "success")
CASES = list(itertools.product(STEPS, (False, True), HOWS))
IDS = [f"{step}-{'persisted' if forwarded else 'not_persisted'}-{how}" for step, forwarded, how in CASES]


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(vault='timeout = "10s"', central_lines='timeout = "1s"') as made:
        yield made


def _fault(how: str, *, forwarded: bool) -> Fault:
    way, status = HOWS[how]
    return Fault(way, forwarded=forwarded, status=status)


@pytest.mark.parametrize(("step", "forwarded", "how"), CASES, ids=IDS)
def test_f20_f21_f23_f24_one_lost_exchange(stacked: Stack, step: str, how: str, *, forwarded: bool) -> None:
    """A reservation or success whose request or answer is lost once is asked for again: released once, one row of each."""
    before, reads = len(stacked.settle()), stacked.reads
    with stacked.to_central.failing(times(1, _fault(how, forwarded=forwarded), with_kind(step))):
        stacked.works()
    stacked.settle()
    assert history.kinds(stacked.rows(before)) == ["reserved", "success"]
    assert stacked.reads == reads + 1


@pytest.mark.parametrize(("step", "forwarded", "how"), CASES, ids=IDS)
def test_f20_to_f24_no_answer_ever(stacked: Stack, step: str, how: str, *, forwarded: bool) -> None:
    """While a step is never acknowledged nothing is released; afterwards the log says so, and the next exec works."""
    before, reads = len(stacked.settle()), stacked.reads
    with stacked.to_central.failing(always(_fault(how, forwarded=forwarded), with_kind(step))):
        stacked.fails(75, "central did not take the audit record", "retry when central is up")
        assert stacked.reads == reads + (step == "success")
    stacked.settle()
    kinds = history.kinds(stacked.rows(before))
    if step == "reserved":
        assert kinds == ["reserved", "abandoned"]
    elif forwarded or "success" in kinds:
        wait_until(lambda: history.kinds(stacked.rows(before)) == ["reserved", "success", "cleared"])
    else:
        assert kinds in (["reserved", "failure"], ["reserved", "abandoned"])
    assert history.released(stacked.central.events()[before:]) == []
    stacked.works()


def test_f19_central_is_down_before_the_reservation(stacked: Stack) -> None:
    """Without central nothing is asked of the provider and nothing runs; when it is back the next exec works."""
    stacked.settle()
    reads = stacked.reads
    stacked.central.stop()
    try:
        stacked.fails(75, "scope web: ", "central did not take the audit record")
        assert stacked.reads == reads
        assert stacked.agent.status()["central"]["state"] == "away"
        assert stacked.agent.status()["ready"] is False
    finally:
        stacked.central.start()
    stacked.works()
    assert stacked.agent.status()["ready"] is True


def test_f22_central_dies_between_reservation_and_success(stacked: Stack) -> None:
    """With central killed while the provider is read, the values are dropped and the reservation ends without a success."""
    before = len(stacked.settle())

    def kill(seen: Seen) -> None:
        if is_read(seen):
            stacked.central.kill()

    try:
        with stacked.to_openbao.failing(kill):
            stacked.fails(75, "central did not take the audit record")
    finally:
        stacked.central.start()
    stacked.settle()
    rows = stacked.rows(before)
    assert history.kinds(rows)[0] == "reserved"
    assert history.released(stacked.central.events()[before:]) == []
    stacked.works()


def test_f25_a_success_after_the_reservation_has_ended(stacked: Stack) -> None:
    """A read that outlasts its reservation releases nothing: central has abandoned it and refuses the success."""
    before = len(stacked.settle())
    go_on = threading.Event()

    def hold(seen: Seen) -> Fault | None:
        return Fault("answer", forwarded=True, until=go_on) if is_read(seen) else None

    def abandoned() -> bool:
        return "abandoned" in [row["kind"] for row in stacked.rows(before)]

    with stacked.to_openbao.failing(hold), ThreadPoolExecutor() as pool:
        failing = pool.submit(stacked.fails, 75, "the reservation has ended with abandoned", options=("--timeout", "60s"))
        try:
            wait_until(abandoned, 50)
        finally:
            go_on.set()
        failing.result()
    stacked.settle()
    assert history.kinds(stacked.rows(before)) == ["reserved", "abandoned"]
    stacked.works()


def test_f20_a_central_that_hangs(stacked: Stack) -> None:
    """A central that accepts and never answers is told in time, nothing runs, and what was queued arrives when it goes on."""
    stacked.settle()
    reads = stacked.reads
    stacked.central.pause()
    try:
        stacked.fails(75, "central did not take the audit record")
        assert stacked.reads == reads
    finally:
        stacked.central.resume()
    stacked.works()
    stacked.settle()


@pytest.mark.parametrize("status", [400, 401, 403, 500, 503])
def test_f28_any_refusal_of_central_denies(stacked: Stack, status: int) -> None:
    """Whatever status central answers in place of its answer, nothing is read or released; there is no log in its place."""
    reads = stacked.reads
    with stacked.to_central.failing(always(Fault("answer", status=status))):
        stacked.fails(75, f"central answered with status {status}")
        assert stacked.reads == reads
    stacked.works()


@pytest.mark.parametrize("body", [b"", b'{"results": []}'])
def test_f28_an_answer_of_another_shape_confirms_nothing(stacked: Stack, body: bytes) -> None:
    """A 200 that is not central's answer is as good as none."""
    reads = stacked.reads
    with stacked.to_central.failing(always(Fault("answer", status=200, body=body))):
        stacked.fails(75, "central's answer has the wrong shape")
        assert stacked.reads == reads
    stacked.works()


@pytest.mark.parametrize("step", STEPS)
def test_f28_a_confirmation_without_its_index_confirms_nothing(stacked: Stack, step: str) -> None:
    """An answer that says yes to another batch, or says it without an index, releases nothing."""
    stacked.settle()
    body = json.dumps({"results": [{"status": 201, "appended": False}] * 2}).encode()
    with stacked.to_central.failing(always(Fault("answer", status=200, body=body), with_kind(step))):
        stacked.fails(75, "wrong shape")
    stacked.works()


def test_f28_a_new_credential_is_taken_up_without_a_restart(stacked: Stack) -> None:
    """A service token that central does not take any more denies; the new one is used as soon as it is in its file."""
    stacked.works()
    stacked.central.agent_tokens["server1"] = secrets.token_urlsafe(32)
    stacked.central.restart()
    stacked.fails(75, "central answered with status 401")
    (stacked.agent.directory / "central.token").write_text(stacked.central.agent_tokens["server1"])
    stacked.works()


def test_f26_the_same_event_id_with_another_body(stacked: Stack) -> None:
    """An event id that is on the log takes the same bytes again and no other ones: 422, and nothing is appended."""
    host = stacked.central.name()
    chain = Chain(host, new_id())
    row = audit_rows.reserved(grant(), new_id())
    same, other = chain.seal(row), chain.seal({**row, "purpose": "other"})
    token = stacked.central.agent_tokens[host]
    before = len(stacked.settle())
    with stacked.central.client(token) as client:
        answers = [client.post("/v1/audit/events:batch", json={"events": [body.decode()]}) for body in (same, same, other)]
    results = [answer.json()["results"][0] for answer in answers]
    assert [result["status"] for result in results] == [201, 201, 422]
    assert results[0] == results[1]
    assert len(stacked.rows(before)) == 1


def test_f27_a_success_and_a_failure_race(stacked: Stack) -> None:
    """Of two ends of one reservation that arrive together exactly one is taken; the other is told which one it was."""
    host = stacked.central.name()
    with stacked.central.client(stacked.central.agent_tokens[host]) as client:
        for _ in range(10):
            name = new_id()
            held = type(reservation())(name, f"pva_{name}", grant())  # type: ignore[arg-type]  # a plain string is one
            first = Chain(host, new_id())
            begun = first.seal(audit_rows.reserved(grant(), held.id))
            assert client.post("/v1/audit/events:batch", json={"events": [begun.decode()]}).json()["results"][0]["status"] == 201
            ends = [audit_rows.failure(held, ValueError()), audit_rows.failure(held, ValueError()) | {"kind": "denied"}]
            bodies = [Chain(host, new_id()).seal(end) for end in ends]
            with ThreadPoolExecutor() as pool:
                sent = [pool.submit(client.post, "/v1/audit/events:batch", json={"events": [body.decode()]}) for body in bodies]
            results = [each.result().json()["results"][0] for each in sent]
            assert sorted(result["status"] for result in results) == [200, 409]
            lost = next(result for result in results if result["status"] == 409)
            assert lost["ended_by"] in ("failure", "denied")


@pytest.mark.parametrize("trusted", [True, False])
def test_f28_a_central_that_cannot_be_trusted_gets_no_credential(stacked: Stack, tmp_path: Path, *, trusted: bool) -> None:
    """Over TLS our token goes to a certificate that we trust; to another one nothing is sent, and nothing is released."""
    tls = Tls(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.cert_file, tls.key_file)
    token = b""

    def note(connection: socket.socket, request: bytes) -> bool:
        nonlocal token
        token += request
        return answering(response(503, b"{}"))(connection, request)

    lines = f'timeout = "1s"\nca_file = "{tls.ca_file}"' if trusted else 'timeout = "1s"'
    with FakeServer(note, context=context) as server, stacked.second(central_url=server.address, central_lines=lines) as agent:
        done = agent.exec("--scope", "web", "--", "/bin/echo", "ran")
    assert (done.returncode, done.stdout) == (75, "")
    assert (stacked.central.agent_tokens[agent.host].encode() in token) is trusted
