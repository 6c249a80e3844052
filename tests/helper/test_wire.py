"""The packets of the helper: bounded, exact, and nothing else gets through."""

from __future__ import annotations

import array
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.helper.wire import (
    LONGEST_LINE,
    REQUEST,
    Malformed,
    Request,
    Said,
    Verb,
    decode,
    decode_answer,
    encode,
    encode_answer,
    receive,
    send,
)

NUMBERS = st.integers(0, 2**32 - 1)


@given(NUMBERS, NUMBERS)
def test_a_request_comes_back_as_it_was(first, second):
    """What was encoded is decoded to the same request, for every verb and number that it may have."""
    for request in (
        Request(Verb.CHOWN, (first, second)),
        Request(Verb.UNIT, (first, second)),
        Request(Verb.GROUP, (first, second)),
        Request(Verb.LEAVE),
        Request(Verb.KILL, (first, 0)),
        Request(Verb.OPEN),
        Request(Verb.MOUNT),
    ):
        assert decode(encode(request)) == request


@given(st.binary(max_size=3 * REQUEST.size))
def test_any_bytes_are_a_request_or_malformed(packet):
    """Whatever the bytes, they are refused as malformed, or they are the only packet of the request that they decode to."""
    try:
        request = decode(packet)
    except Malformed:
        return
    assert encode(request) == packet


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\1" * 8,
        b"\1" * 10,
        b"\0" + b"\0" * 8,
        b"\10" + b"\0" * 8,
        REQUEST.pack(Verb.OPEN, 1, 0),
        REQUEST.pack(Verb.KILL, 9, 1),
        REQUEST.pack(Verb.MOUNT, 0, 1),
        REQUEST.pack(Verb.LEAVE, 1, 0),
    ],
)
def test_what_is_no_request_is_malformed(packet):
    """Another length, another verb, or a number where none belongs is no request."""
    with pytest.raises(Malformed):
        decode(packet)


@given(st.binary(max_size=LONGEST_LINE + 8))
def test_any_bytes_are_an_answer_or_malformed(packet):
    """The agent takes whatever the helper says for an answer with a line, or for none."""
    try:
        said, line = decode_answer(packet)
    except Malformed:
        return
    assert said in Said and len(line) == len(packet) - 1


@given(st.text())
def test_a_line_of_any_text_fits(text):
    """A refusal is one packet whatever its line holds, cut where it is too long."""
    said, line = decode_answer(encode_answer(Said.REFUSED, text))
    assert said is Said.REFUSED and len(line) <= LONGEST_LINE and line.isascii()


def test_what_is_too_large_leaves_no_descriptor_open():
    """A larger packet is malformed, and so is one with more descriptors than there is room for: none of them stays open."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(os.devnull, "rb") as file:
        before = len(os.listdir("/proc/self/fd"))
        for packet, count in ((b"x" * (REQUEST.size + 1), 1), (b"x" * REQUEST.size, 9)):
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()] * count))]
            theirs.sendmsg([packet], beside)
            with pytest.raises(Malformed):
                receive(ours, REQUEST.size)
        assert len(os.listdir("/proc/self/fd")) == before
        send(theirs, encode(Request(Verb.OPEN)), file.fileno())
        packet, passed = receive(ours, REQUEST.size)
        assert decode(packet) == Request(Verb.OPEN) and len(passed) == 1 and not os.get_inheritable(passed[0])
        os.close(passed[0])
