"""What central's answer means: only a whole, well-formed yes is one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.audit.answers import check_reserved, check_success, of_central, problem, results
from prism_vault_agent.errors import AuditUnavailable, Denied
from prism_vault_agent.model import ReservationId
from tests.audit.nouns import resolution

YES = {"status": 201, "appended": True, "n": 7}
NAMES = ["results", "status", "n", "x"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["results", "status", "n", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.integers(100, 599).filter(lambda status: status != 200), st.binary(max_size=50))
def test_f28_no_other_status_confirms_anything(status: int, body: bytes) -> None:
    """Whatever comes with another status than 200 is unknown: the batch is asked for again."""
    with pytest.raises(AuditUnavailable):
        results(status, body, [b"e"])


@given(JSON | st.binary(max_size=60))
def test_f28_any_other_shape_confirms_nothing(content: object) -> None:
    """Any body is either one answer a sent event, each with a numeric status, or unknown; nothing else is ever raised."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    try:
        (answer,) = results(200, body, [b"e"])
    except AuditUnavailable:
        return
    assert isinstance(answer["status"], int)


@pytest.mark.parametrize("count", [0, 2])
def test_a_batch_needs_an_answer_for_each_event(count: int) -> None:
    """Fewer or more answers than events confirm none of them."""
    with pytest.raises(AuditUnavailable):
        results(200, json.dumps({"results": [YES] * count}).encode(), [b"e"])


def test_f28_a_deeply_nested_or_huge_body_confirms_nothing() -> None:
    """A body made to exhaust the parser is as good as none."""
    for body in (b"[" * 200_000, b'{"results": "' + b"x" * 2_000_000 + b'"}'):
        with pytest.raises(AuditUnavailable):
            results(200, body, [b"e"])


@given(st.integers(100, 599), st.booleans())
def test_only_a_yes_is_a_receipt(status: int, appended: bool) -> None:  # noqa: FBT001 - Hypothesis passes it so
    """A success is on the log only where central says so, twice: 200 or 201, and appended; a reservation too; 403 is a denial."""
    answer = {**YES, "status": status, "appended": appended, "reason": "r", "message": "m"}
    if status in (200, 201) and appended:
        assert check_success(answer, resolution()).n == 7
        check_reserved(answer, ReservationId("1"))
        return
    with pytest.raises(AuditUnavailable) as refused:
        check_success(answer, resolution())
    assert refused.value.reason == "r"
    with pytest.raises(Denied if status == 403 else AuditUnavailable) as denied:
        check_reserved(answer, ReservationId("1"))
    assert denied.value.reason == "r"
    assert denied.value.audit_id == ("pva_1" if status == 403 else "")


@pytest.mark.parametrize("index", [None, "x", [], {}])
def test_f28_a_success_without_its_index_is_none(index: object) -> None:
    """A yes that does not say where the row is confirms nothing, and is a typed error."""
    with pytest.raises(AuditUnavailable):
        check_success({**YES, "n": index}, resolution())


@pytest.mark.parametrize("said", [{"code": "x\ny", "request_id": "A" * 16}, {"code": 7, "request_id": None}, {"code": "a" * 41}])
def test_only_what_can_be_a_code_or_an_id_gets_into_our_log(said: dict[str, object]) -> None:
    """What claims to be a problem's code or a request's id and has another form is left out."""
    error = problem("central answered", 503, json.dumps(said).encode())

    assert (error.message, of_central(error)) == ("central answered with status 503", {})
    assert results(200, json.dumps({"results": [YES]}).encode(), [b"e"], request_id="a\nb")[0]["request_id"] == ""
