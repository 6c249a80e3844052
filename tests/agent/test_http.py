"""HTTP on the agent's socket: what is answered, and that no bytes whatever hurt it."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import shutil
import socket
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.agent.front import http
from tests.agent.asking import STATUS, answer, ask, connect, exec_request, pid_of, receive
from tests.support.as_user import in_child
from tests.support.soak import count

PLAN = b'POST /v1/plan HTTP/1.1\r\nHost: a\r\nX-Prism-Vault: 1\r\nContent-Length: 18\r\n\r\n{"scopes":["web"]}'
SEEDS = (STATUS, PLAN, exec_request("web", dry_run=1))


def request(head: str, body: bytes = b"", *, header: str = "X-Prism-Vault: 1") -> bytes:
    """Return a POST with its header and length."""
    return f"{head} HTTP/1.1\r\nHost: prism-vault\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_status_answers_plain_http(agent):
    """``curl --unix-socket`` gets the status: one JSON object, over HTTP/1.1, without a header of ours."""
    told = ask(agent.socket, b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n")
    assert told.status == 200
    assert json.loads(told.body)["pid"] == pid_of(agent)
    if curl := shutil.which("curl"):
        words = [curl, "--silent", "--show-error", "--fail", "--unix-socket", agent.socket, "http://localhost/v1/status"]
        printed = subprocess.run(words, capture_output=True, check=True, timeout=60).stdout
        assert json.loads(printed)["pid"] == pid_of(agent)


@pytest.mark.parametrize("path", ["/v1/exec", "/v1/plan", "/v1/revoke"])
@pytest.mark.parametrize("header", ["X-Other: 1", "X-Prism-Vault: 0", "X-Prism-Vault: 1\r\nOrigin: http://localhost"])
def test_what_a_browser_can_send_is_refused(agent, path, header):
    """A POST without our header, or with an Origin, is refused with 403 before its body is looked at."""
    assert ask(agent.socket, request(f"POST {path}", b"{}", header=header)).status == 403


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /", 404), ("GET /v1/status/", 404), ("POST /v1/unknown", 404), ("GET /v1/../v1/status", 404),
        ("POST /v1/status", 405), ("HEAD /v1/status", 405), ("DELETE /v1/status", 405), ("GET /v1/exec", 405),
        ("PUT /v1/plan", 405),
    ],
)  # fmt: skip
def test_routes(agent, head, status):
    """An unknown path is 404; a known one with another method is 405 and says which method it has."""
    with connect(agent.socket) as connection:
        connection.sendall(request(head))
        told = receive(connection).decode()
    assert told.startswith(f"HTTP/1.1 {status} ")
    assert (f"\r\nAllow: {'GET' if 'status' in head else 'POST'}\r\n" in told) == (status == 405)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"1", b"[" * 60_000, b'{"run_ref":' * 5_000])
def test_a_body_that_is_no_object_is_refused(agent, body):
    """Plan and revoke refuse a body that is not one JSON object with 400, and go on serving."""
    assert ask(agent.socket, request("POST /v1/plan", body)).status == 400
    assert ask(agent.socket, request("POST /v1/revoke", body)).status == 400


@pytest.mark.parametrize(
    "body",
    [b'{"scopes": 1}', b'{"scopes": {"a": 1}}', b'{"scopes": [1, null]}', b'{"scopes": ["web"], "run_ref": 7}',
     b'{"scopes": ["web"], "purpose": ["a"], "job_id": {}}', b'{"scopes": ["\\ud800"]}'],
)  # fmt: skip
def test_fields_of_the_wrong_type_are_no_defect(agent, body):
    """A plan with fields of the wrong type gets an answer that is not an internal error."""
    assert ask(agent.socket, request("POST /v1/plan", body)).status in {200, 400}
    assert ask(agent.socket, request("POST /v1/revoke", body.replace(b"scopes", b"run_ref"))).status == 400


MALFORMED = {
    "garbage": b"\x00\x01\x02\xff" * 64 + b"\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c403035e") + b"\x00" * 200 + b"\r\n\r\n",
    "http/0.9": b"GET /v1/status\r\n\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no host": b"GET /v1/status HTTP/1.1\r\n\r\n",
    "negative length": b"POST /v1/exec HTTP/1.1\r\nHost: a\r\nX-Prism-Vault: 1\r\nContent-Length: -1\r\n\r\nscope=web\0",
    "two lengths": b"POST /v1/exec HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST /v1/exec HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n",
    "bad chunk": b"POST /v1/exec HTTP/1.1\r\nHost: a\r\nX-Prism-Vault: 1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nab\r\n\r\n",
    "large head": b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    "head without end": b"GET /v1/status HTTP/1.1\r\n" + b"X: a\r\n" * 10_000,
    "large body": request("POST /v1/exec", b"a" * 70_000),
    "large chunks": b"POST /v1/exec HTTP/1.1\r\nHost: a\r\nX-Prism-Vault: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    + (b"8000\r\n" + b"a" * 0x8000 + b"\r\n") * 3 + b"0\r\n\r\n",
    "cut body": b"POST /v1/exec HTTP/1.1\r\nHost: a\r\nX-Prism-Vault: 1\r\nContent-Length: 100\r\n\r\nscope=web\0",
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_f90_malformed_frames_are_closed_with_an_error(agent, name):
    """F90: a frame that is too large, negative, cut short or no HTTP is answered with an error and closed."""
    with connect(agent.socket) as connection:
        try:
            connection.sendall(MALFORMED[name])
            connection.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass  # answered before all was sent
        told = answer(connection)
    assert 400 <= told.status < 500 or told.status == 501
    assert told.exit == 76
    assert agent.status()["ready"]


@pytest.mark.parametrize("seed", SEEDS)
def test_f90_single_bytes(agent, seed):
    """F90: a request that comes byte by byte is the same request."""
    with connect(agent.socket) as connection:
        for byte in seed:
            connection.sendall(bytes([byte]))
        assert answer(connection).status == 200


def test_f90_pipelined(agent):
    """F90: of several requests sent at once the first is answered, once, and the connection is closed."""
    with connect(agent.socket) as connection:
        connection.sendall(STATUS * 5)
        assert answer(connection).status == 200


def test_f90_a_late_request_is_told_so(agent):
    """F90: a connection that says nothing, or half a request, is closed after the header time with 408."""
    with connect(agent.socket) as silent, connect(agent.socket) as half:
        half.sendall(STATUS[:-2])
        assert answer(silent).status == 408
        assert answer(half).status == 408


def mutated(chance: random.Random) -> bytes:
    """Return a request with some of its bytes changed, lost, doubled or swapped for others; now and then pure noise."""
    frame = bytearray(chance.choice(SEEDS))
    if chance.random() < 0.05:
        return chance.randbytes(chance.randrange(200))
    for _ in range(chance.randrange(1, 8)):
        place = chance.randrange(len(frame) + 1)
        length = min(chance.choice((0, 1, 1, 1, 2, 4, 16, 64)), len(frame) - place)
        twice = bytes(frame[place : place + length]) * 2
        frame[place : place + length] = chance.choice((b"", chance.randbytes(length), twice, b"\r\n", b"\r\n\r\n", b"\0", b": "))
    return bytes(frame)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_f90_fuzz(agent):
    """F90: no frame out of many crashes the agent, and each gets one well-formed answer or is closed."""
    before = agent.log.count("connection.failed")

    def ask() -> None:
        chance = random.Random(20_261_122)
        for _ in range(count(20_000, 1_000_000)):
            frame = mutated(chance)
            with connect(agent.socket) as connection:
                try:
                    connection.sendall(frame)
                    connection.shutdown(socket.SHUT_WR)
                except BrokenPipeError:
                    pass
                told = receive(connection)
            assert not told or (told.startswith(b"HTTP/1.1 ") and told.count(b"HTTP/1.1 ") == 1), (frame, told)

    in_child(ask, uid=None)
    assert agent.log.count("connection.failed") == before
    assert agent.status()["ready"]


async def read(parts: list[bytes]) -> http.HttpRequest | None:
    """Return what is read of a connection on which these bytes come, then its end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reading = asyncio.create_task(http.read_request(ours))
        for part in parts:
            theirs.sendall(part)
            await asyncio.sleep(0)
        theirs.shutdown(socket.SHUT_WR)
        return await reading


@settings(deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.integers(0, 300), max_size=6))
def test_any_split_of_a_request_is_the_request(seed, places):
    """How a request is split on its way does not matter."""
    ends = sorted({0, len(seed), *(min(place, len(seed)) for place in places)})
    parts = [seed[start:end] for start, end in itertools.pairwise(ends)]
    assert asyncio.run(read(parts)) == asyncio.run(read([seed]))


LINES = st.sampled_from([b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n", b"Content-Length: 5\r\n"])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40) | LINES))
def test_any_bytes_are_a_request_or_refused(parts):
    """Whatever comes is a request, nothing, or a ``BadRequest`` with a status of the 4xx or 501."""
    status = 400
    try:
        asyncio.run(read([b"".join(parts)[:8192]]))
    except http.BadRequest as refused:
        status = refused.status
    assert 400 <= status < 500 or status == 501
