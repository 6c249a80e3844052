"""The bytes between the thin client and the agent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.exec import Malformed, wire

names = st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & set(b"=\0"))
values = st.binary(max_size=60).filter(lambda value: 0 not in value)
blocks = st.lists(st.tuples(names, values), unique_by=lambda pair: pair[0], max_size=8)
repeated = st.lists(st.tuples(st.sampled_from(sorted(wire.REPEATED)), values), max_size=6)
single = st.lists(
    st.tuples(st.sampled_from(sorted(wire.FIELDS - wire.REPEATED)), values), unique_by=lambda pair: pair[0], max_size=6
)


def an_answer(body: bytes = b"A=1\0", **headers: bytes) -> bytes:
    lines = {b"Content-Type": b"text/plain", b"Content-Length": b"%d" % len(body)}
    lines.update({name.replace("_", "-").encode(): value for name, value in headers.items()})
    return b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % line for line in lines.items()) + b"\r\n" + body


@given(blocks)
def test_block_round_trip(pairs):
    """Every environment block is read back as it was written."""
    assert wire.decode_block(wire.encode_block(pairs)) == pairs


@given(st.builds(lambda one, two: one + two, repeated, single))
def test_request_round_trip(fields):
    """Every request is read back as it was written, and says its length."""
    request = wire.encode_request(fields)
    head, _, body = request.partition(b"\r\n\r\n")
    assert wire.decode_request(body) == fields
    assert b"Content-Length: %d" % len(body) in head.split(b"\r\n")
    assert head.startswith(b"POST /v1/exec HTTP/1.1\r\n")


@given(st.binary(max_size=200))
def test_any_bytes_as_request(body):
    """Any bytes are a request or ``Malformed``, never another error."""
    try:
        fields = wire.decode_request(body)
    except Malformed:
        return
    assert wire.encode_block(fields) == body


@given(st.binary(max_size=200))
def test_any_bytes_as_block(body):
    """Any bytes are an environment block or ``Malformed``; what is accepted has one spelling."""
    try:
        pairs = wire.decode_block(body)
    except Malformed:
        return
    assert wire.encode_block(pairs) == body


@given(blocks, st.integers(min_value=0), st.binary(min_size=1, max_size=3), st.sampled_from(["set", "insert", "delete"]))
def test_mutated_answer(pairs, place, some, how):
    """An answer that was changed in any place is parsed or ``Malformed``, and never longer than it says."""
    whole = an_answer(wire.encode_block(pairs))
    at = place % len(whole)
    behind = {"set": at + len(some), "insert": at, "delete": at + len(some)}[how]
    changed = whole[:at] + (b"" if how == "delete" else some) + whole[behind:]
    try:
        status, headers, body = wire.parse_answer(changed)
    except Malformed:
        return
    assert 200 <= status <= 999
    assert len(body) == int(headers[b"content-length"])


@given(blocks, st.data())
def test_cut_answer(pairs, data):
    """An answer that is cut anywhere is ``Malformed``."""
    whole = an_answer(wire.encode_block(pairs))
    with pytest.raises(Malformed):
        wire.parse_answer(whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (wire.LONGEST_ANSWER + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * wire.LONGEST_HEAD,
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        an_answer() + b"more",
    ],
)
def test_bad_answers(answer):
    """An answer with the wrong shape, no length, an impossible length or something behind it is refused."""
    with pytest.raises(Malformed):
        wire.parse_answer(answer)


@pytest.mark.parametrize(
    "body", [b"scope", b"scope\0", b"=x\0", b"scope=a", b"colour=red\0", b"purpose=a\0purpose=b\0", b"\0", b"scope=a\0\0"]
)
def test_bad_requests(body):
    """A request with an unknown field, a field said twice or an item without name, sign or end is refused."""
    with pytest.raises(Malformed):
        wire.decode_request(body)


def test_bad_blocks():
    """A block holds each name once, and no name or value that its format cannot carry."""
    with pytest.raises(Malformed):
        wire.decode_block(b"A=1\0A=1\0")
    for pair in ((b"", b"x"), (b"A=B", b"x"), (b"A\0", b"x"), (b"A", b"x\0")):
        with pytest.raises(Malformed):
            wire.encode_block([pair])


def test_malformed_tells_no_value():
    """What is wrong with bytes is told without any of them."""
    for body in (b"canary=canary\0", b"canary", b"purpose=canary\0purpose=canary\0"):
        with pytest.raises(Malformed) as caught:
            wire.decode_request(body)
        assert "canary" not in str(caught.value)
