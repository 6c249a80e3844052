"""The stream of signals as bytes: any cut of it is the same events, and what is no such stream is told, whatever it is."""

from __future__ import annotations

import contextlib
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.audit.stream import LARGEST_EVENT, READ_SIZE, Events
from prism_vault_agent.errors import AuditUnavailable

WHOLE = b'retry: 1000\nid: 3\n\n:\n\nid: 4\nevent: rotation\ndata: {"target": {"scope": "web"}}\n\n:\nid: 9\n\n'


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_any_cut_gives_the_same_events(cuts):
    """Wherever the bytes are cut, the events are the same, in order."""
    events, heard = Events(), []
    places = [0, *sorted(cuts), len(WHOLE)]
    for start, end in pairwise(places):
        heard += list(events.feed(WHOLE[start:end]))

    assert [(each.id, each.kind) for each in heard] == [(3, ""), (4, "rotation"), (9, "")]
    assert heard[1].data == {"target": {"scope": "web"}}


@given(
    content=st.lists(
        st.binary(max_size=40) | st.sampled_from([b"\n", b"\n\n", b"id: ", b"data: ", b"{}", b"event: "]), max_size=30
    )
)
def test_any_bytes_are_events_or_one_error(content):
    """Whatever comes is events, nothing, or ``AuditUnavailable``."""
    with contextlib.suppress(AuditUnavailable):
        for each in Events().feed(b"".join(content)):
            assert isinstance(each.id, int)


@pytest.mark.parametrize(
    "content",
    [
        b"event: revocation\ndata: {}\n\n",
        b'data: {"target": {}}\n\n',
        b"id: 4\ndata: no JSON\n\n",
        b"id: 4\ndata: [1]\n\n",
        b"id: 4\ndata: " + b"[" * 100_000 + b"\n\n",
        b"id: four\n\n",
        b"id: " + b"9" * 5_000 + b"\n\n",
        b"\xff\xfe: \x00\nid\n\n",
        b"x" * (LARGEST_EVENT + 1),
        b"".join(b"name%d:\n" % number for number in range(60_000)),
    ],
    ids=[
        "no_id",
        "data_alone",
        "no_json",
        "no_object",
        "deep",
        "no_number",
        "long_number",
        "bytes",
        "endless_line",
        "endless_event",
    ],
)
def test_what_is_wrong_is_told(content):
    """An event without id, without sense, or without end is an error, never passed over."""
    events, pieces = Events(), [content[start : start + READ_SIZE] for start in range(0, len(content), READ_SIZE)]
    with pytest.raises(AuditUnavailable):
        list(chain.from_iterable(map(events.feed, pieces)))
