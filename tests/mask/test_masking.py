"""What the mask takes out of a stream, and that it leaves the rest."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prism_vault_agent.exec.forms import SHORTEST, forms
from prism_vault_agent.exec.masking import UNSEEN, Mask, Stream
from tests.support.soak import count

VALUE = 's3cr3t/pass+word ünï"\\code'
# Few letters, so that values contain, overlap and continue each other; stars, because the mark is usually made of them.
few = st.binary(min_size=0, max_size=20).map(lambda raw: bytes(b"ab*\n="[byte % 5] for byte in raw))
values = st.lists(st.binary(min_size=0, max_size=24).map(lambda raw: raw.replace(b"\0", b"x")) | few, max_size=3)


def encodings(value: bytes) -> list[bytes]:
    """Return what the standard library makes of a value, at every offset and between other text."""
    found = [value, value.hex().encode(), value.hex().upper().encode(), urllib.parse.quote(value, safe="").encode()]
    found += [urllib.parse.quote_plus(value).encode(), base64.b64encode(value), base64.urlsafe_b64encode(value)]
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return found
    whole = json.dumps(text, ensure_ascii=False)[1:-1]
    as_go = whole.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
    return [*found, json.dumps(text)[1:-1].encode(), whole.encode(), as_go.encode()]


def through(mask: Mask, pieces: list[bytes]) -> bytes:
    """Return all that is printed of a stream in pieces; less is held back meanwhile than the longest form has."""
    stream = Stream(mask)
    printed = b""
    for piece in pieces:
        printed += stream.feed(piece)
        assert len(stream.held) < max(mask.longest, 1)
    return printed + stream.rest(end=True)


def cut(text: bytes, places: list[int]) -> list[bytes]:
    """Return ``text`` in pieces."""
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def expected(mask: Mask, text: bytes) -> bytes:
    """Return what must be printed, found in the plainest way: each byte that is in a form is taken out."""
    hidden = bytearray(len(text))
    joins: set[int] = set()
    for form in mask.forms:
        for at in range(len(text) - len(form) + 1):
            if text[at : at + len(form)] == form:
                hidden[at : at + len(form)] = b"\1" * len(form)
                joins.update(range(at + 1, at + len(form)))
    printed = b""
    for at, byte in enumerate(text):
        if not hidden[at]:
            printed += bytes((byte,))
        elif at not in joins:
            printed += mask.mark
    return printed


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Values, and a text in pieces that has forms and parts of forms of them."""
    chosen = draw(values)
    known = sorted(set().union(*map(forms, chosen))) if chosen else []
    whole = st.sampled_from(known) if known else st.just(b"")
    part = st.tuples(whole, st.integers(0, 30), st.integers(0, 30)).map(lambda each: each[0][each[1] : each[1] + each[2]])
    text = b"".join(draw(st.lists(st.binary(max_size=8) | few | whole | part, max_size=12)))
    return chosen, cut(text, draw(st.lists(st.integers(0, 10_000), max_size=12)))


@settings(max_examples=count(300, 3_000))
@given(streams())
@example(([b"aaaaaaaaab"], [b"aaaaaaaaaaaaab"]))
@example(([b"xxxxxxxx", b"\nxxxxxxxxx"], [b"KeHh4eHh4eH", b"h4"]))
@example(([b"xxxxxxxx", b"xxxxxxx\n"], [b"eHh4eHh4eA"]))
@example(([b"abababab", b"babababa"], [b"ab"] * 9))
def test_any_values_in_any_pieces(case):
    """No form is in what is printed, and every byte that is in none is printed, however the stream is cut."""
    chosen, pieces = case
    mask = Mask(chosen)
    printed = through(mask, pieces)
    assert not [form for form in mask.forms if form in printed]
    assert printed == expected(mask, b"".join(pieces))


@given(
    st.binary(min_size=SHORTEST, max_size=40).map(lambda raw: raw.replace(b"\0", b"x")),
    st.binary(max_size=5),
    st.binary(max_size=5),
)
@example("delete-\x7f\x80-\u2028".encode(), b"", b"")
@example(b"delete-\x7f", b"", b"")
def test_encodings_of_any_value(value, before, after):
    """What the standard library encodes, alone and within other text, is not in what is printed."""
    mask = Mask([value])
    for encoded in encodings(value):
        assert encoded not in through(mask, [before + encoded + after])
    core = base64.b64encode(before + value + after)
    printed = through(mask, [core])
    assert mask.mark in printed
    assert len(printed) <= len(core) - (len(value) * 8 // 6 - 2) + len(mask.mark)


@pytest.mark.parametrize("form", encodings(VALUE.encode()))
def test_each_form(form):
    """Each form is replaced by stars, in the middle of a line."""
    assert through(Mask([VALUE.encode()]), [b"before ", form, b" after\n"]) == b"before ******** after\n"


def test_lines():
    """Of a value with several lines each line is replaced, also with the line ends of a terminal; PEM's own lines stay."""
    pem = b"-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\nabc\n-----END KEY-----"
    mask = Mask([pem])
    assert through(mask, [pem]) == mask.mark
    assert through(mask, [pem.replace(b"\n", b"\r\n")]) == mask.mark
    assert (
        through(mask, [b"> MIIEvQIBADANBg\n> abc\n-----BEGIN KEY-----\n"])
        == b"> " + mask.mark + b"\n> abc\n-----BEGIN KEY-----\n"
    )


@pytest.mark.parametrize("encode", [base64.encodebytes, lambda value: re.sub(rb"(.{64})", rb"\1\n", base64.b64encode(value))])
@pytest.mark.parametrize("more", [b"", b"\n"])
def test_base64_in_lines(encode, more):
    """Of the base64 of a long value nothing is printed, as base64(1) and PEM break it, but for the end that is the newline's."""
    value = bytes(range(1, 200))
    mask = Mask([value])
    rest = through(mask, [encode(value + more)]).replace(mask.mark, b"").replace(b"\n", b"")
    assert len(rest) <= 3


def test_json_fit_for_html():
    """A value is replaced also where `<`, `>` and `&` are escaped in JSON, as Go does."""
    assert through(Mask([b"a<b>c&d/e"]), [rb'{"key": "a\u003cb\u003ec\u0026d/e"}']) == b'{"key": "********"}'


def test_lines_that_are_little_but_space():
    """Lines that stand in any indented output are left."""
    mask = Mask([b"first line of it\n              }\n                \n"])
    assert through(mask, [b"                \n              }\n> first line of it"]) == (
        b"                \n              }\n> " + mask.mark
    )


def test_short_values_are_not_masked():
    """What is shorter than eight bytes is left, since it stands in ordinary output by chance."""
    assert Mask([b"1234567", b""]).forms == set()
    assert through(Mask([b"1234567"]), [b"1234567"]) == b"1234567"


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_nothing_to_mask(text, places):
    """Without values every byte is printed at once."""
    stream = Stream(Mask([]))
    assert [stream.feed(piece) for piece in cut(text, places)] == cut(text, places)


def test_only_what_may_begin_a_form_is_held_back():
    """What cannot be the beginning of a form is printed at once; of a beginning fewer than four bytes when nothing more comes."""
    stream = Stream(Mask([b"abcdefgh"]))
    assert stream.feed(b"password: ") == b"password: "
    assert stream.feed(b"xab") == b"x"
    assert stream.rest(end=False) == b"ab"
    assert stream.feed(b"c") == b""
    assert stream.feed(b"X") == b"cX"
    assert stream.feed(b"abc" + b"d") == b""
    assert stream.rest(end=False) == b""
    assert stream.feed(b"efgh.") == b"********."


def test_a_value_that_comes_slowly():
    """A value that comes byte by byte, with a pause at each, shows fewer than four bytes of itself."""
    stream = Stream(Mask([b"abcdefgh"]))
    printed = b""
    for byte in b"-abcdefgh-":
        printed += stream.feed(bytes((byte,))) + stream.rest(end=False)
    assert printed == b"-abc********-"
    assert UNSEEN == 4


def test_a_value_of_every_byte():
    """Where a value has every byte in it that could make a mark, the one is taken that no value can have."""
    value = bytes(range(1, 256))
    mask = Mask([value])
    assert mask.mark == bytes(8)
    assert through(mask, [b"<", value, b">"]) == b"<" + bytes(8) + b">"
