"""Answers that are none, too large, or send us elsewhere (F10, F12)."""

from __future__ import annotations

import gzip
import resource
import socket

import pytest

from prism_vault_agent.errors import ProtocolError, ProviderUnavailable
from tests.support.fake_server import FakeServer, always, answer, in_turn
from tests.support.vault import CANARY, soon, transport

GOOD = answer(b'{"data": {"k": "v"}}')

WRONG_ANSWERS = {
    "truncated JSON": answer(b'{"data": {"k": "CAN'),
    "duplicate keys": answer(b'{"data": {"k": "CANARY", "k": "CANARY"}}'),
    "not JSON": answer(b"<html>CANARY</html>"),
    "a list": answer(b'["CANARY"]'),
    "cut short": GOOD[:-3],
    "not HTTP": b"CANARY\r\n\r\n",
    "teapot": answer(b"{}", "418 I'm a teapot"),
    "moved": answer(b"", "301 Moved Permanently", "Location: /v1/elsewhere"),
    "an HTML 404": answer(b"<html>CANARY</html>", "404 Not Found"),
    "gzip": answer(gzip.compress(b'{"data": {"k": "CANARY"}}'), "200 OK", "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("response", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_an_answer_of_the_wrong_shape_is_a_protocol_error(response: bytes) -> None:
    """What is not an answer is refused, once, and the error quotes nothing of it."""

    def once(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(response)
        return False

    with FakeServer(once) as server:
        with pytest.raises(ProtocolError) as failed:
            transport(server.address).request("GET", "a/b", token=CANARY, deadline=soon(5))
        assert len(server.requests) == 1
    assert "CAN" not in failed.value.line()
    assert failed.value.exit_status == 76


@pytest.mark.parametrize("framing", ["length", "chunked", "until the end"])
def test_a_huge_answer_is_refused_without_being_held(framing: str) -> None:
    """64 MiB are refused after 4 MiB at most, so memory grows by less than 16 MiB."""
    block = b"x" * 65_536

    def flood(connection: socket.socket, _request: bytes) -> bool:
        head = {
            "length": f"Content-Length: {64 << 20}\r\n",
            "chunked": "Transfer-Encoding: chunked\r\n",
            "until the end": "Connection: close\r\n",
        }[framing]
        connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
        for _ in range(1024):
            connection.sendall(b"10000\r\n" + block + b"\r\n" if framing == "chunked" else block)
        return False

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with FakeServer(flood) as server, pytest.raises(ProtocolError):
        transport(server.address).request("GET", "a/b", deadline=soon())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_a_compressed_bomb_is_never_opened() -> None:
    """Compression is not asked for, and a compressed answer is refused unopened."""
    bomb = gzip.compress(b"0" * (64 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with FakeServer(always(answer(bomb, "200 OK", "Content-Encoding: gzip"))) as server:
        with pytest.raises(ProtocolError):
            transport(server.address).request("GET", "a/b", deadline=soon())
        assert b"accept-encoding" not in server.received.lower()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_to_another_server_is_not_followed(status: str) -> None:
    """The token goes to the configured server only, whatever that server says."""
    with FakeServer(always(GOOD)) as other:
        there = answer(b"", status, f"Location: {other.address}/v1/a/b")
        with FakeServer(always(there)) as server, pytest.raises(ProviderUnavailable) as failed:
            transport(server.address).request("GET", "a/b", token=CANARY, deadline=soon())
        assert other.connections == 0
    assert failed.value.reason == "redirect"


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1.evil.test:{port}/", "//evil.test/", "https://127.0.0.1:{port}/", "http://127.0.0.1:1/", "", "http://[/"],
)
def test_a_redirect_to_anything_but_the_same_origin_is_not_followed(location: str) -> None:
    """Scheme, host and port must all be the configured ones."""
    locations: list[str] = []

    def away(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(answer(b"", "307 Temporary Redirect", f"Location: {locations[0]}"))
        return True

    with FakeServer(away) as server:
        locations.append(location.format(port=server.port))
        with pytest.raises(ProviderUnavailable):
            transport(server.address).request("GET", "a/b", token=CANARY, deadline=soon())
        assert len(server.requests) == 1


def test_a_redirect_within_the_same_server_is_followed_with_method_and_body() -> None:
    """307 and 308 to the same origin keep the method, the body and the token."""
    with FakeServer(in_turn(answer(b"", "307 Temporary Redirect", "Location: /v1/new%20place?x=1"), GOOD)) as server:
        assert transport(server.address).request("POST", "a/b", token=CANARY, body={"k": "v"}, deadline=soon()).ok
        assert server.requests[1].startswith(b"POST /v1/new%20place?x=1 HTTP/1.1\r\n")
        assert server.received.count(b'{"k":"v"}') == 2


def test_redirects_in_a_circle_end() -> None:
    """A server that redirects for ever gets four requests."""
    with FakeServer(always(answer(b"", "307 Temporary Redirect", "Location: /v1/a/b"))) as server:
        with pytest.raises(ProtocolError):
            transport(server.address).request("GET", "a/b", deadline=soon())
        assert len(server.requests) == 4
