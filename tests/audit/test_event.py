"""Events as bytes: canonical, chained, with ids that sort."""

from __future__ import annotations

import contextlib
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.audit import event

TEXT = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(TEXT, VALUES, max_size=6)


@given(FIELDS)
def test_canonical_bytes_are_read_back_as_the_same_fields(fields: event.Fields) -> None:
    """What is made canonical reads back as it was, and is the same whatever the order of its keys."""
    body = event.canonical(fields)
    assert event.parse(body) == fields
    assert event.canonical(dict(reversed(fields.items()))) == body
    assert json.loads(body) == fields


@given(FIELDS, st.sampled_from([(b":", b": "), (b",", b", "), (b"{", b"{ "), (b"}", b"}\n")]))
def test_other_spellings_of_the_same_fields_are_refused(fields: event.Fields, change: tuple[bytes, bytes]) -> None:
    """Bytes that say the same in another spelling are not an event, so two hashes never stand for one event."""
    body = event.canonical(fields)
    other = body.replace(*change)
    if other != body:
        with contextlib.suppress(ValueError):
            assert event.parse(other) != fields  # the change fell within a text


@given(st.binary(max_size=60))
def test_any_bytes_are_canonical_or_refused(body: bytes) -> None:
    """Whatever arrives is read as exactly the bytes that would be made of it, or raises ``ValueError``."""
    try:
        fields = event.parse(body)
    except (ValueError, RecursionError):
        return
    assert event.canonical(fields) == body


@pytest.mark.parametrize("value", [1.0, math.nan, math.inf, [1.5], {"a": {"b": [0.1]}}, (2.0,)])
def test_a_floating_point_number_has_no_canonical_form(value: object) -> None:
    """Numbers on which serialisers differ are refused before they are hashed, however deep they are."""
    with pytest.raises(TypeError):
        event.canonical({"x": value})


@pytest.mark.parametrize("body", [b'{"x":1.0}', b'{"x":NaN}', b'{"x":1e3}', b'{"x":1,"x":1}', b"[]", b'"x"', b'{"x":"\\u0041"}'])
def test_what_is_not_canonical_is_refused(body: bytes) -> None:
    """Floats, duplicate keys, other types than an object and needless escapes are no event."""
    with pytest.raises(ValueError):
        event.parse(body)


def test_ids_are_of_version_7_and_sort_by_time() -> None:
    """Ids have the version and variant of RFC 9562, differ from each other, and those of a later millisecond sort later."""
    ids = [event.new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", each) for each in ids)
    times = [int(each[:12], 16) for each in ids]
    assert times == sorted(times)
    assert event.audit_id(ids[0]) == f"pva_{ids[0]}"


@given(st.lists(FIELDS, min_size=1, max_size=6))
def test_a_chain_links_each_event_to_the_bytes_before_it(events: list[event.Fields]) -> None:
    """Sequence numbers count from 1 without gaps and ``prev`` is the hash of the previous bytes; sealing alone moves nothing."""
    chain = event.Chain("h", "e")
    before = event.FIRST
    for number, fields in enumerate(events, 1):
        chain.seal({"kind": "dropped"})
        body = chain.seal(fields)
        sealed = event.parse(body)
        assert (sealed["seq"], sealed["prev"], sealed["host"], sealed["epoch"], sealed["v"]) == (number, before, "h", "e", 1)
        chain.accept(body)
        before = event.digest(body)
