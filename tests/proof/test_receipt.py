"""Receipts: what central promises with one signature, and that nothing else is promised by it."""

from __future__ import annotations

import pytest

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof.keys import SigningKey
from prism_vault_agent.proof.note import Checkpoint
from prism_vault_agent.proof.receipt import check_receipt, receipt_text
from tests.proof.trees import numbered

KEY = SigningKey.generate("log.example/one")
PUBLIC = KEY.verifying_key
LEAVES = numbered(3)
ROWS = [(7, LEAVES[0]), (8, LEAVES[1])]
AT = 1_767_225_600_000


def test_a_receipt_has_one_text():
    """The text is the one of the protocol, line for line."""
    assert receipt_text("log.example/one", AT, ROWS).decode() == (
        f"prism-vault receipt v1\nlog.example/one\n1767225600000\n7 {LEAVES[0].hex()}\n8 {LEAVES[1].hex()}\n"
    )


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], []])
def test_a_receipt_that_central_signed_is_accepted(rows):
    """A receipt for any number of rows verifies with central's key."""
    [signature] = KEY.sign_many([receipt_text("log.example/one", AT, rows)])
    check_receipt(PUBLIC, signature, "log.example/one", AT, rows)


@pytest.mark.parametrize(
    ("origin", "at", "rows"),
    [
        ("log.example/two", AT, ROWS),
        ("log.example/one", AT + 1, ROWS),
        ("log.example/one", AT, ROWS[::-1]),
        ("log.example/one", AT, ROWS[:1]),
        ("log.example/one", AT, [*ROWS, (9, LEAVES[2])]),
        ("log.example/one", AT, [(7, LEAVES[0]), (9, LEAVES[1])]),
        ("log.example/one", AT, [(7, LEAVES[0]), (8, LEAVES[2])]),
        ("log.example/one", AT, []),
    ],
)
def test_a_receipt_is_for_exactly_its_rows(origin, at, rows):
    """With another origin, time, number, hash, order or count of rows, the same signature promises nothing."""
    signature = KEY.sign(receipt_text("log.example/one", AT, ROWS))
    with pytest.raises(IntegrityError, match=r"receipt does not verify with log\.example/one"):
        check_receipt(PUBLIC, signature, origin, at, rows)


def test_a_receipt_of_another_key_is_refused():
    """A signature by a key of the same name, or none at all, promises nothing."""
    forged = SigningKey.generate("log.example/one").sign(receipt_text("log.example/one", AT, ROWS))
    for signature in (forged, b"", bytes(64)):
        with pytest.raises(IntegrityError):
            check_receipt(PUBLIC, signature, "log.example/one", AT, ROWS)


def test_a_receipt_is_never_a_checkpoint():
    """Signed text of one kind cannot be read as the other, so one key can sign both."""
    for rows in (ROWS, []):
        text = receipt_text("log.example/one", AT, rows).decode()
        with pytest.raises(IntegrityError):
            Checkpoint.parse(text)
    assert not Checkpoint("log.example/one", 8, LEAVES[0]).text().startswith("prism-vault receipt")
