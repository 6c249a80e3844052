"""Events told by their form say what the long way finds in them, and what is no event is never told so."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.audit.event import canonical, parse
from prism_vault_agent.central.verification.forms import FIELDS, MOST_FORMS, MOST_KINDS, Forms
from tests.central.test_verify_rules import JSON
from tests.support.soak import count

NAMED = {"event_id": "e", "host": "h", "epoch": "1e5", "seq": 3, "prev": "p", "reservation": "", "kind": "success"}
ODD = st.sampled_from(
    [
        b"-0",
        b"01",
        b"1.5",
        b"1e16",
        b"9" * 19,
        b"9" * 5000,
        b'"\\u0041"',
        '"\u00e9"'.encode(),
        b'"\x7f"',
        b"NaN",
        b"{}",
        b"[1, 2]",
    ]
)


@settings(max_examples=count(300, 20_000), deadline=None)
@given(
    fields=st.dictionaries(st.text(st.sampled_from('abz_\u00e9"{('), max_size=6), JSON, max_size=5),
    at=st.integers(0, 5_000),
    odd=st.one_of(ODD, st.binary(max_size=3)),
    cut=st.integers(0, 12),
)
def test_what_an_event_is_told_to_say_by_its_form_is_what_it_says(fields: dict[str, Any], at: int, odd: bytes, cut: int):
    """Whatever takes the place of any bytes of an event, its form tells of it what ``audit.event.parse`` does, or nothing."""
    try:
        body = canonical(fields | NAMED)
        learnt = parse(body)
    except (TypeError, ValueError):
        return
    forms = Forms()
    forms.learn(learnt, "success")
    for changed in (body, body[: at % len(body)] + odd + body[at % len(body) + cut :]):
        said = forms.said(changed, "success")
        if said is not None:
            found = parse(changed)
            assert said == tuple(found[name] for name in FIELDS)
            assert type(said[3]) is type(found["seq"])


def test_usual_events_are_told_by_their_form():
    """An event like one before it is told by its form, also where it has null for a text, and a list is longer or empty."""
    forms = Forms()
    rest = {"run_ref": "run-7", "scopes": ["web"], "caller": {"uid": 1000, "kind": "service"}, "at": 5}
    forms.learn(parse(canonical(NAMED | rest)), "success")

    others: list[dict[str, Any]] = [
        {"run_ref": None},
        {"scopes": []},
        {"scopes": ["web", "db"]},
        {"at": -7},
        {"caller": {"uid": 0, "kind": "x"}},
    ]
    for other in others:
        assert forms.said(canonical(NAMED | rest | other), "success") == ("e", "h", "1e5", 3, "p", "", "success")
    assert forms.said(canonical(NAMED | rest), "failure") is None
    assert forms.said(canonical(NAMED | rest | {"more": 1}), "success") is None


def test_forms_are_few():
    """However many forms and kinds there are in a log, no more than some are kept."""
    forms = Forms()
    for kind in range(MOST_KINDS + 5):
        for number in range(MOST_FORMS + 5):
            forms.learn(NAMED | {f"key{number}": 1}, str(kind))

    assert len(forms._known) == MOST_KINDS
    assert {len(known) for known in forms._known.values()} == {MOST_FORMS}
