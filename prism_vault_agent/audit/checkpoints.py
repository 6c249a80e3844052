"""What central's answers about its checkpoints and proofs mean to a host that believes only a key. Pure.

``IntegrityError``: central shows another log than the one that we know. ``AuditUnavailable``: its answer proves nothing now.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.errors import AuditUnavailable, IntegrityError
from prism_vault_agent.proof.growth import check_growth
from prism_vault_agent.proof.merkle import verify_inclusion
from prism_vault_agent.proof.note import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.proof.keys import VerifyingKey

CHECKPOINT: Final = "/v1/audit/checkpoint?from={size}"
PROOF: Final = "/v1/audit/proof/{n}?size={size}"
LONGEST_PROOF: Final = 128
UNPROVED: Final = "unproved"


def grown(keys: Sequence[VerifyingKey], held: Checkpoint | None, status: int, content: bytes) -> tuple[Checkpoint, str] | None:
    """Return the newest checkpoint, signed by one of ``keys`` and shown to extend ``held``, and its note.

    None where the log has none yet.

    Raises ``IntegrityError`` or ``AuditUnavailable``.
    """
    answer = _parsed(content)
    code = answer.get("code")
    if status == 404 and code == "no_checkpoint" and held is None:
        return None
    if held is not None and (status, code) in ((404, "no_checkpoint"), (409, "ahead")):
        size = _opened(keys, answer).size if answer.get("note") is not None else 0
        raise IntegrityError(f"the log went back to {size} rows, after a checkpoint about {held.size}")
    if status != 200:
        raise unproved(f"asked for its checkpoint, central answered with status {status}")
    newer = _opened(keys, answer)
    if held is not None:
        check_growth(held, newer, _proof(answer))
    return newer, answer["note"]


def included(n: int, leaf: bytes, held: Checkpoint, status: int, content: bytes) -> bool:
    """Tell whether row ``n`` is shown to be in the tree of ``held`` with this leaf; False where it still waits.

    Raises ``IntegrityError`` where it never will be, else ``AuditUnavailable``.
    """
    answer = _parsed(content)
    code = answer.get("code")
    if status == 404 and code == "no_such_event":
        raise IntegrityError(f"row {n} is not on the log, though central has signed for it")
    if status == 404 and code == "not_sequenced":
        return False
    if status != 200:
        raise unproved(f"asked for the proof of a row, central answered with status {status}")
    index, proof = answer.get("index"), _proof(answer)
    if answer.get("leaf") != leaf.hex():
        raise IntegrityError(f"row {n} is another one on the log than central has signed for")
    if type(index) is not int or not verify_inclusion(leaf, index, held.size, proof, held.root):
        raise IntegrityError(f"row {n} is not shown to be in the log of {held.size} rows, though central has signed for it")
    return True


def unproved(why: str, mend: str = "see central's log") -> AuditUnavailable:
    """Return the error for a log of which nobody can tell now whether it is whole."""
    return AuditUnavailable(f"central's log is not proved: {why}", mend=mend, reason=UNPROVED)


def _opened(keys: Sequence[VerifyingKey], answer: dict[str, Any]) -> Checkpoint:
    note = answer.get("note")
    if not isinstance(note, str):
        raise unproved("central's answer has no checkpoint")
    return open_checkpoint(note, keys[0].name, *keys)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise unproved("central's answer has the wrong shape")
    return answer


def _proof(answer: dict[str, Any]) -> list[bytes]:
    proof = answer.get("proof")
    try:
        if isinstance(proof, list) and len(proof) <= LONGEST_PROOF:
            return [bytes.fromhex(node) for node in proof]
    except (ValueError, TypeError):
        pass
    raise unproved("central's proof has the wrong shape")
