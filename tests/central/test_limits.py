"""What central refuses before a route sees it: framing that two readers could read differently, and too much of anything."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPEND = b"POST /v1/audit/reservations HTTP/1.1\r\nHost: central\r\n"
AMBIGUOUS = {
    "a length and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    "a length that is no number": b"Content-Length: +4\r\n\r\nabcd",
    "chunks that are not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a chunk's size that is no number": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a blank before the colon": b"Content-Length : 4\r\n\r\nabcd",
    "a zero byte in a header": b"X-Header: a\x00b\r\n\r\n",
}


def connected(central: CentralProcess) -> socket.socket:
    """Return a bare connection to central."""
    host, _, port = central.url.partition("://")[2].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=25)


def until_closed(client: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("framing", AMBIGUOUS)
def test_ambiguous_framing_is_refused_and_the_connection_closed(central, framing):
    """A request that another reader could end elsewhere gets no good answer, and nothing behind it is read as a request."""
    with connected(central) as client:
        client.sendall(APPEND + AMBIGUOUS[framing] + b"GET /healthz HTTP/1.1\r\nHost: central\r\n\r\n")
        answer = until_closed(client)

    assert answer.startswith(b"HTTP/1.1 4")
    assert b"HTTP/1.1 200" not in answer
    assert b'"status": "ok"' not in answer


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[CentralProcess]:
    """Return a central that may have 160 descriptors, so 32 connections."""
    central = CentralProcess(tmp_path)
    central.start(["/usr/bin/prlimit", "--nofile=160:160"])
    try:
        yield central
    finally:
        central.stop()


def test_a_connection_too_many_is_told_so(narrow):
    """Beyond as many connections as there may be each gets 503 and its code; with one gone, an agent is served again."""
    clients = [connected(narrow) for _ in range(32)]
    for client in clients:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: central\r\n\r\n")
    answers = [client.recv(4096) for client in clients]
    with ExitStack() as more:
        refused = [until_closed(more.enter_context(connected(narrow))) for _ in range(200)]
    clients.pop().close()
    wait_until(lambda: served(narrow))
    with narrow.client("none") as client:
        counted = client.get("/metrics").text
    for client in clients:
        client.close()

    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert {answer.partition(b"\r\n")[0] for answer in refused} == {b"HTTP/1.1 503 Service Unavailable"}
    assert {json.loads(answer.partition(b"\r\n\r\n")[2])["code"] for answer in refused} == {"too_many_connections"}
    assert b"retry-after: 1\r\n" in refused[0]
    assert "prism_vault_central_connections_refused_total" in counted


def served(central: CentralProcess) -> bool:
    """Tell whether an agent's reservation is taken, and its connection not one too many; it is closed then."""
    host = Host(central)
    with host.client:
        return host.send(host.make("reserved")).status_code == 201


def test_what_is_no_http_is_a_problem(central):
    """The answer to bytes that are no request is a problem with its code, and the connection ends."""
    with connected(central) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        head, _, body = until_closed(client).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "http"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(central, host, chunked):
    """A body over the limit is refused by what it says, and by what it is where it does not say."""
    body = b"x" * (300 * 1024)
    answer = host.client.post("/v1/audit/reservations", content=iter([body]) if chunked else body)

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
