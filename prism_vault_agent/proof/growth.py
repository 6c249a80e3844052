"""What a witness demands of each further checkpoint of a log: that it has only grown (https://c2sp.org/tlog-witness). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof.merkle import verify_consistency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.proof.note import Checkpoint


def check_growth(older: Checkpoint, newer: Checkpoint, proof: Sequence[bytes]) -> None:
    """Raise ``IntegrityError`` unless ``proof`` shows that the log of ``newer`` begins with all that ``older`` is about.

    Both checkpoints are of one log, and were opened. Between two of one size no proof is needed: their roots are the same.
    """
    if newer.size < older.size:
        raise IntegrityError(f"the log went back to {newer.size} rows, after a checkpoint about {older.size}")
    if newer.size == older.size:
        if newer.root != older.root:
            raise IntegrityError(f"there are two logs: two checkpoints about {older.size} rows differ")
    elif older.size and not verify_consistency(older.size, older.root, newer.size, newer.root, proof):
        raise IntegrityError(f"the log of {newer.size} rows is not shown to begin with the {older.size} of an earlier checkpoint")
