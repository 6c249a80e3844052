"""What a witness demands: a log only grows."""

from __future__ import annotations

import pytest

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof.growth import check_growth
from prism_vault_agent.proof.note import Checkpoint
from tests.proof.trees import Defined, numbered

MOST = 20
TREE = Defined(numbered(MOST))
OTHER = Defined([*numbered(MOST)[::-1]])


def _at(size: int, tree: Defined = TREE) -> Checkpoint:
    return Checkpoint("log", size, tree.root(0, size))


def _proof(old: int, new: int, tree: Defined = TREE) -> list[bytes]:
    return tree.subproof(old, 0, new, known=True) if 0 < old < new else []


@pytest.mark.parametrize("old", range(MOST + 1))
def test_a_log_that_only_grew_is_accepted(old: int):
    """From every size to every larger one, and to the same one, the log's own proof is enough."""
    for new in range(old, MOST + 1):
        check_growth(_at(old), _at(new), _proof(old, new))


@pytest.mark.parametrize("old", range(1, MOST + 1))
def test_a_log_that_went_back_is_refused(old: int):
    """A checkpoint about fewer leaves is refused, whatever comes with it."""
    for new in range(old):
        with pytest.raises(IntegrityError, match=f"went back to {new} rows, after a checkpoint about {old}"):
            check_growth(_at(old), _at(new), _proof(new, old))


@pytest.mark.parametrize("old", range(2, MOST + 1))
def test_another_log_is_refused(old: int):
    """A log that does not begin with the leaves that we know is refused, at the same size and at every larger one."""
    for new in range(old, MOST + 1):
        with pytest.raises(IntegrityError, match="two logs" if new == old else "is not shown to begin with"):
            check_growth(_at(old), _at(new, OTHER), _proof(old, new, OTHER))


def test_growth_without_its_proof_is_refused():
    """A larger log that shows no proof, or that of other sizes, is refused."""
    for proof in ([], _proof(6, MOST), _proof(7, MOST)[:-1], [*_proof(7, MOST), bytes(32)]):
        with pytest.raises(IntegrityError, match="is not shown to begin with"):
            check_growth(_at(7), _at(MOST), proof)
