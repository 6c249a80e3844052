"""Central's receipts: a row counts where central has signed for exactly what was sent, and nowhere else."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.audit.receipts import promise
from prism_vault_agent.errors import AuditUnavailable
from prism_vault_agent.proof.keys import SigningKey
from tests.audit.signed_log import KEY, NAME, SignedLog

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLIC = KEY.verifying_key
REFUSED = {"status": 409, "appended": False, "reason": "chain"}
BODIES = [b'{"one":1}', b'{"two":2}']

Answer = tuple[list[bytes], list[dict[str, Any]], Any]


def _answer() -> Answer:
    log = SignedLog()
    log.append(b"earlier")
    return log.append(*BODIES)


@pytest.mark.parametrize("count", [1, 2, 128])
def test_a_receipt_for_what_was_sent_is_a_promise(count: int) -> None:
    """The numbers and leaves of every appended row are in the promise, in their order."""
    log = SignedLog()
    given = promise([PUBLIC], *log.append(*(b"%d" % number for number in range(count))))
    assert given is not None
    assert list(given.rows) == log.rows
    assert given.origin == NAME


def test_what_was_not_appended_needs_no_receipt() -> None:
    """A refused event is in no receipt: with others it is left out, alone there is no promise."""
    bodies, answers, receipt = _answer()
    given = promise([PUBLIC], [*bodies, b"refused"], [*answers, REFUSED], receipt)
    assert given is not None
    assert len(given.rows) == 2
    assert promise([PUBLIC], [b"refused"], [REFUSED], None) is None


def test_an_answer_without_a_receipt_is_none() -> None:
    """Rows that central has appended and not signed for are unknown: the error says that the receipt is missing."""
    bodies, answers, _ = _answer()
    with pytest.raises(AuditUnavailable, match="no receipt") as raised:
        promise([PUBLIC], bodies, answers, None)
    assert raised.value.reason == "receipt_missing"


CHANGES: dict[str, Callable[[Answer], object]] = {
    "another event": lambda answer: answer[0].__setitem__(0, b"{}"),
    "the events in another order": lambda answer: answer[0].reverse(),
    "another number": lambda answer: answer[1][0].update(n=7),
    "a number that is none": lambda answer: answer[1][0].update(n=True),
    "a number below all": lambda answer: answer[1][0].update(n=-1),
    "a number beyond all": lambda answer: answer[1][0].update(n=2**63),
    "no number": lambda answer: answer[1][0].pop("n"),
    "another time of arrival": lambda answer: answer[1][0].update(received_at=1),
    "no time of arrival": lambda answer: answer[1][0].pop("received_at"),
    "another leaf": lambda answer: answer[1][0].update(leaf="00" * 32),
    "no leaf": lambda answer: answer[1][0].update(leaf=None),
    "a row fewer": lambda answer: answer[1][0].update(appended=False),
    "another origin": lambda answer: answer[2].update(origin="log.example/two"),
    "another time": lambda answer: answer[2].update(at=1),
    "a time that is text": lambda answer: answer[2].update(at="1"),
    "no signature": lambda answer: answer[2].pop("signature"),
    "a signature that is none": lambda answer: answer[2].update(signature=[1]),
    "another signature": lambda answer: answer[2].update(signature="AAAA"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_receipt_for_anything_else_is_wrong(change: str) -> None:
    """With anything of the answer changed, or of what was sent, the receipt promises nothing, and the error says so."""
    answer = copy.deepcopy(_answer())
    CHANGES[change](answer)
    with pytest.raises(AuditUnavailable) as raised:
        promise([PUBLIC], *answer)
    assert raised.value.reason == "receipt_wrong"


def test_a_receipt_of_another_key_is_wrong() -> None:
    """A signature by another key of the same name promises nothing."""
    with pytest.raises(AuditUnavailable, match=f"does not verify with {NAME}") as raised:
        promise([SigningKey.generate(NAME).verifying_key], *_answer())
    assert raised.value.reason == "receipt_wrong"
    assert "log_key" in raised.value.mend


def test_while_a_key_is_replaced_both_count() -> None:
    """A receipt by either of two keys of one name is a promise; one by a third is not."""
    new = SigningKey.generate(NAME)
    for signer in (KEY, new):
        assert promise([PUBLIC, new.verifying_key], *SignedLog(key=signer).append(*BODIES)) is not None
    with pytest.raises(AuditUnavailable, match=r"does not verify with .* or "):
        promise([PUBLIC, new.verifying_key], *SignedLog(key=SigningKey.generate(NAME)).append(*BODIES))


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
    | st.dictionaries(st.sampled_from(["origin", "at", "signature", "x"]), st.none() | st.integers() | st.text(max_size=9))
)
def test_any_other_receipt_is_an_error_of_ours(receipt: Any) -> None:
    """Whatever stands in the place of a receipt: it is refused as unavailable, and nothing else is ever raised."""
    bodies, answers, _ = _answer()
    with pytest.raises(AuditUnavailable):
        promise([PUBLIC], bodies, answers, receipt)
