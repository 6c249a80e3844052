"""JSON without the package ``json``, against it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.steer.plain_json import decoded, encoded

PLAIN = st.recursive(
    st.none() | st.booleans() | st.text() | st.text(st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF), max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ANY = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=PLAIN)
def test_what_is_said(value):
    """Text, lone surrogates too, true, false, null, lists and objects are written as ``json`` writes them."""
    assert encoded(value) == json.dumps(value).encode()


@given(value=ANY)
def test_what_is_understood(value):
    """What ``json`` writes is read as ``json`` reads it, with blanks around it too."""
    assert decoded(b"\n " + json.dumps(value).encode() + b"\r\n") == value


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": 1} x', b"nothing", b"'a'", b"\xff", b'"a\nb"', b"[1,]", b'{"a" 1}'])
def test_what_is_refused(text: bytes):
    """What is no JSON, is cut short, goes on or is not UTF-8 is a ``ValueError``, as with ``json``."""
    for reader in (json.loads, decoded):
        with pytest.raises(ValueError):
            reader(text)
