"""JSON as a provider may answer it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.errors import ProtocolError
from prism_vault_agent.vault import strict_json

BAD = {
    "duplicate names": b'{"a": "CANARY", "a": "CANARY"}',
    "duplicate names, deep": b'{"a": [{"b": 1, "b": 2}]}',
    "truncated": b'{"a": "CANARY',
    "trailing": b'{"a": 1} {"b": 2}',
    "a list": b'["CANARY"]',
    "a string": b'"CANARY"',
    "null": b"null",
    "empty": b"",
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": "CANARY"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "nested without end": b'{"a":' * 100_000,
    "control character": b'{"a": "CAN\x01ARY"}',
    "single quotes": b"{'a': 'CANARY'}",
}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_anything_but_one_well_formed_object_is_refused(body: bytes, *, exact: bool) -> None:
    """What two readers could understand differently is refused, and the message does not quote it."""
    with pytest.raises(ProtocolError) as refused:
        strict_json.parse(body, exact_numbers=exact)
    assert "CANARY" not in refused.value.line()
    assert refused.value.exit_status == 76


def test_a_number_beyond_the_integer_limit_is_a_typed_error_where_it_is_read_as_one() -> None:
    """An integer of ten thousand digits is refused as a number, and kept as digits where digits are asked for."""
    body = b'{"a": ' + b"9" * 10_000 + b"}"
    with pytest.raises(ProtocolError):
        strict_json.parse(body)
    assert strict_json.parse(body, exact_numbers=True)["a"] == "9" * 10_000


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=5))
def test_well_formed_objects_are_read_as_they_are(tree: dict[str, object]) -> None:
    """An object that JSON can spell is read back unchanged."""
    assert strict_json.parse(json.dumps(tree, ensure_ascii=True).encode()) == tree


@given(body=st.binary(max_size=200), exact=st.booleans())
def test_random_bytes_never_crash(body: bytes, *, exact: bool) -> None:
    """Any bytes are an object or a typed error."""
    with contextlib.suppress(ProtocolError):
        assert isinstance(strict_json.parse(body, exact_numbers=exact), dict)
