"""Reading one HTTP/1.1 response."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.errors import ProtocolError
from prism_vault_agent.vault import http1

WHOLE = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"a": "body"}'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n8;ext="x"\r\n "body"}\r\n0\r\nTrailer: yes\r\n\r\n'
BAD = {
    "nothing like it": b"SSH-2.0-OpenSSH_9.7\r\n\r\n",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "HTTP/0.9": b"{}\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status 999": b"HTTP/1.1 999 OK\r\n\r\n",
    "head cut short": b"HTTP/1.1 200 OK\r\nContent-Le",
    "body cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
    "chunk cut short": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{}",
    "chunk of signs": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "chunk without its end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
    "huge chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    "other coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    "length in words": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
    "huge length": b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n{}",
    "length of a million digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 60_000 + b"\r\n\r\n{}",
    "folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}",
    "bare newlines": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "compressed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "head without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    "interim without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
    "trailer without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 20_000,
}


def pieces(data: bytes, size: int) -> Callable[[], bytes]:
    parts = iter([data[at : at + size] for at in range(0, len(data), size)])
    return lambda: next(parts, b"")


@pytest.mark.parametrize("size", [1, 2, 7, 65_536])
@pytest.mark.parametrize("response", [WHOLE, CHUNKED], ids=["length", "chunks"])
def test_a_response_is_read_however_it_is_cut(response: bytes, size: int) -> None:
    """The pieces in which bytes come do not matter."""
    reply = http1.read(pieces(response, size))
    assert (reply.status, reply.body, reply.last) == (200, b'{"a": "body"}', False)


def test_a_response_may_end_with_its_connection() -> None:
    """Without a length the body goes to the end of the connection, which cannot be used again."""
    reply = http1.read(pieces(b"HTTP/1.0 404 Not Found\r\n\r\n{}", 3))
    assert (reply.status, reply.body, reply.last) == (404, b"{}", True)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_some_statuses_have_no_body(status: str) -> None:
    """A 204 ends with its head and leaves the connection usable."""
    reply = http1.read(pieces(f"HTTP/1.1 {status}\r\nX-Any: thing\r\n\r\n".encode(), 9))
    assert (reply.body, reply.last) == (b"", False)


def test_interim_responses_are_passed_over() -> None:
    """A 103 before the answer is not the answer."""
    assert http1.read(pieces(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + WHOLE, 11)).status == 200


@pytest.mark.parametrize(
    "response", [WHOLE.replace(b"200 OK\r\n", b"200 OK\r\nConnection: x, Close\r\n"), WHOLE + b"HTTP/1.1 200"]
)
def test_a_connection_that_must_not_go_on_is_told(response: bytes) -> None:
    """After "close", or after bytes that nobody asked for, the connection is not used again."""
    assert http1.read(pieces(response, 65_536)).last


@pytest.mark.parametrize("size", [3, 65_536])
@pytest.mark.parametrize("response", BAD.values(), ids=BAD)
def test_what_is_not_one_clear_response_is_refused(response: bytes, size: int) -> None:
    """Anything ambiguous, cut short, compressed or too large is a typed error."""
    with pytest.raises(ProtocolError):
        http1.read(pieces(response, size))


def test_a_connection_that_ends_before_the_first_byte_is_a_lost_connection() -> None:
    """Nothing at all is told apart from something wrong, because it may be retried."""
    with pytest.raises(ConnectionResetError):
        http1.read(lambda: b"")


@given(st.binary(max_size=300), st.integers(1, 50))
def test_random_bytes_never_crash(junk: bytes, size: int) -> None:
    """Any bytes are a response or a typed error."""
    with contextlib.suppress(ProtocolError, ConnectionResetError):
        http1.read(pieces(junk, size))


@given(st.data())
def test_any_change_of_a_response_never_crashes(data: st.DataObject) -> None:
    """A response with any bytes replaced is a response or a typed error."""
    response = bytearray(data.draw(st.sampled_from([WHOLE, CHUNKED])))
    for _ in range(data.draw(st.integers(1, 4))):
        response[data.draw(st.integers(0, len(response) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        http1.read(pieces(bytes(response), 16))
