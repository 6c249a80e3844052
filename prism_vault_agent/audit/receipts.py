"""Central's receipts, checked: a row counts where central has signed for the leaf that we compute from what we sent. Pure.

A receipt that is missing or wrong leaves the answer unknown. The rows may be on the log; the same bytes are sent again, and
until there is a receipt that verifies nothing is released. So a chain never goes on from a row that central can deny.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.audit.answers import MISSING, WRONG
from prism_vault_agent.errors import AuditUnavailable
from prism_vault_agent.proof.keys import from_base64
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import leaf_hash
from prism_vault_agent.proof.receipt import receipt_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.audit.answers import Answer
    from prism_vault_agent.proof.keys import VerifyingKey

LARGEST: Final = 2**63


@dataclass(frozen=True, slots=True)
class Promise:
    """What one receipt promises: that these rows, each a number and the hash of its leaf, are durable and will be in the tree.

    ``at`` is milliseconds since 1970, ``signature`` the base64 that central gave.
    """

    origin: str
    at: int
    signature: str
    rows: tuple[tuple[int, bytes], ...]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        rows = [[n, leaf.hex()] for n, leaf in self.rows]
        return {"origin": self.origin, "at": self.at, "signature": self.signature, "rows": rows}


def promise(keys: Sequence[VerifyingKey], bodies: Sequence[bytes], answers: Sequence[Answer], receipt: Any) -> Promise | None:
    """Return what central promises about those of ``bodies`` that it appended; None where it appended none.

    Raises ``AuditUnavailable``, with a reason of its own, unless one of ``keys``, which have one name, has signed for exactly
    these rows.
    """
    appended = [(body, answer) for body, answer in zip(bodies, answers, strict=True) if answer.get("appended") is True]
    if not appended:
        return None
    if receipt is None:
        raise AuditUnavailable("central gave no receipt for the audit record", mend="see central's log", reason=MISSING)
    try:
        rows = tuple(_row(body, answer) for body, answer in appended)
        given = Promise(receipt["origin"], _number(receipt["at"]), receipt["signature"], rows)
        signature = from_base64(given.signature)
    except (ValueError, KeyError, TypeError):
        raise _wrong("central's receipt is not about the record that was sent") from None
    if given.origin != keys[0].name:
        raise _wrong("central's receipt is of another log")
    text = receipt_text(given.origin, given.at, given.rows)
    if not any(key.verifies(text, signature) for key in keys):
        known = " or ".join(f"{key.name}+{key.key_hash.hex()}" for key in keys)
        raise _wrong(f"central's receipt does not verify with {known}")
    return given


def _row(body: bytes, answer: Answer) -> tuple[int, bytes]:
    """Return number and leaf of an event's row. Raises ``ValueError`` where central's leaf is not that of what we sent."""
    n = _number(answer["n"])
    leaf = leaf_hash(leaf_data(n, _number(answer["received_at"]), body))
    if answer["leaf"] != leaf.hex():
        raise ValueError
    return n, leaf


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError
    return value


def _wrong(told: str) -> AuditUnavailable:
    mend = "compare [central] log_key with the key of central's operator"
    return AuditUnavailable(told, mend=mend, reason=WRONG)
