"""Proofs made from stored tiles are those of RFC 9162's definitions, and their verification says yes to them and no to others."""

from __future__ import annotations

import itertools

import pytest

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof import tiles
from prism_vault_agent.proof.merkle import verify_consistency, verify_inclusion
from tests.proof.trees import Defined, Stored, numbered


def test_every_proof_of_a_small_tree_is_as_defined():
    """For all sizes up to 130, each proof is the defined one, and verifies."""
    leaves = numbered(130)
    stored, defined = Stored(leaves), Defined(leaves)
    for size in range(1, 131):
        root = defined.root(0, size)
        assert tiles.root_of(size, stored.fetch) == root
        for index in range(size):
            proof = tiles.inclusion_proof(index, size, stored.fetch)
            assert proof == defined.path(index, 0, size)
            assert verify_inclusion(leaves[index], index, size, proof, root)
        for old in range(1, size + 1):
            proof = tiles.consistency_proof(old, size, stored.fetch)
            assert proof == defined.subproof(old, 0, size, known=True)
            assert verify_consistency(old, defined.root(0, old), size, root, proof)


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
def test_no_proof_is_made_for_a_leaf_outside(index, size):
    """A leaf that the tree has not is refused before anything is read."""
    stored = Stored(numbered(5))
    with pytest.raises(ValueError, match="not in a tree"):
        tiles.inclusion_proof(index, size, stored.fetch)
    assert stored.asked == []


@pytest.mark.parametrize(("old", "new"), [(0, 5), (-1, 5), (6, 5), (0, 0)])
def test_no_proof_is_made_from_nothing_or_backwards(old, new):
    """Growth is proved from a tree with leaves to one at least as large."""
    stored = Stored(numbered(5))
    with pytest.raises(ValueError, match="no proof"):
        tiles.consistency_proof(old, new, stored.fetch)
    assert stored.asked == []


def test_missing_hashes_are_told_with_their_place():
    """A store that has lost hashes gives no proof, and the error says where."""
    leaves = numbered(600)
    for level, size in itertools.product((0, 8), (600,)):
        stored = Stored(leaves)
        del stored.levels[level][1:]
        with pytest.raises(IntegrityError, match=rf"level {level} "):
            tiles.root_of(size, stored.fetch)
