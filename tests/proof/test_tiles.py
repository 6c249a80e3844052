"""Proofs made from stored tiles are those of RFC 9162's definitions, from few short reads."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof import tiles
from prism_vault_agent.proof.merkle import Frontier, verify_consistency, verify_inclusion
from prism_vault_agent.proof.tiles import STORED_LEVELS
from tests.proof.trees import Defined, Stored, Uniform, numbered
from tests.support.soak import count

LEAVES = numbered(66_400)
STORED, DEFINED = Stored(LEAVES), Defined(LEAVES)
TURNS = [128, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 65_791, 65_792, 65_793, 66_400]


def _check_inclusion(index: int, size: int) -> None:
    proof = tiles.inclusion_proof(index, size, STORED.fetch)
    assert proof == DEFINED.path(index, 0, size)
    assert verify_inclusion(LEAVES[index], index, size, proof, DEFINED.root(0, size))


def _check_consistency(old: int, new: int) -> None:
    proof = tiles.consistency_proof(old, new, STORED.fetch)
    assert proof == DEFINED.subproof(old, 0, new, known=True)
    assert verify_consistency(old, DEFINED.root(0, old), new, DEFINED.root(0, new), proof)


def test_every_proof_of_a_small_tree_is_as_defined():
    """For all sizes up to 66 (130 at full length), each proof is the defined one, and verifies."""
    for size in range(1, count(66, 130) + 1):
        assert tiles.root_of(size, STORED.fetch) == DEFINED.root(0, size)
        for index in range(size):
            _check_inclusion(index, size)
            _check_consistency(index + 1, size)


def test_proofs_where_tiles_begin_and_end_are_as_defined():
    """Around 256 and 65,536 leaves, where a tile takes the place of its leaves, proofs are the defined ones."""
    for size in TURNS:
        assert tiles.root_of(size, STORED.fetch) == DEFINED.root(0, size)
        for other in (1, 2, 3, *(turn for turn in TURNS if turn <= size)):
            _check_inclusion(other - 1, size)
            _check_consistency(other, size)


def test_proofs_of_random_trees_are_as_defined():
    """Proofs of random leaves in trees of random sizes, and between such trees, are the defined ones."""
    drawn = random.Random(6962)
    for _ in range(count(300, 20_000)):
        size = drawn.randint(1, len(LEAVES))
        _check_inclusion(drawn.randrange(size), size)
        _check_consistency(drawn.randint(1, size), size)


@given(st.integers(0, len(LEAVES)), st.integers(0, 700))
def test_a_stored_tree_goes_on_growing(size: int, more: int) -> None:
    """A tree that is read back has the root of the one that was stored, and grows into the same."""
    tree = tiles.frontier_of(size, STORED.fetch)
    assert (tree.size, tree.root()) == (size, DEFINED.root(0, size))
    found = tree.extend(LEAVES[size : size + more])
    assert tree.root() == DEFINED.root(0, tree.size)
    assert [(node.level, node.hash) for node in found] == [
        (level, STORED.levels[level][position]) for level in (8, 16) for position in range(size >> level, tree.size >> level)
    ]


LARGE = st.integers(1, 1 << 32) | st.sampled_from([1 << 24, (1 << 24) + 1, (1 << 24) - 1, 10_000_000, (1 << 32) - 1])


@given(LARGE, st.data())
def test_a_large_tree_is_read_in_one_request_for_little(size: int, data: st.DataObject) -> None:
    """Up to 4,294,967,296 leaves, a proof takes one request for what is stored, at most two tiles of each level."""
    tree = Uniform(size)
    other = data.draw(st.integers(1, size) | st.sampled_from([1, size]))
    root, leaf = tree.root(size), tree.levels[0]
    assert tiles.root_of(size, tree.fetch) == root
    assert verify_inclusion(leaf, other - 1, size, tiles.inclusion_proof(other - 1, size, tree.fetch), root)
    assert verify_consistency(other, tree.root(other), size, root, tiles.consistency_proof(other, size, tree.fetch))
    assert len(tree.asked) <= 3
    for ranges in tree.asked:
        assert len(ranges) <= 3 * len(STORED_LEVELS)
        for stored in STORED_LEVELS:
            assert sum(length for level, _, length in ranges if level == stored) <= 512


def test_nothing_is_asked_for_where_nothing_is_needed():
    """One leaf alone, and a tree that has not grown, are proved without reading."""
    stored = Stored(LEAVES[:2])
    assert tiles.inclusion_proof(0, 1, stored.fetch) == []
    assert tiles.consistency_proof(2, 2, stored.fetch) == []
    assert tiles.frontier_of(0, stored.fetch).root() == Frontier().root()
    assert stored.asked == []


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
def test_no_proof_is_made_for_a_leaf_outside(index, size):
    """A leaf that the tree has not is refused before anything is read."""
    stored = Stored(LEAVES[:5])
    with pytest.raises(ValueError, match="not in a tree"):
        tiles.inclusion_proof(index, size, stored.fetch)
    assert stored.asked == []


@pytest.mark.parametrize(("old", "new"), [(0, 5), (-1, 5), (6, 5), (0, 0)])
def test_no_proof_is_made_from_nothing_or_backwards(old, new):
    """Growth is proved from a tree with leaves to one at least as large."""
    stored = Stored(LEAVES[:5])
    with pytest.raises(ValueError, match="no proof"):
        tiles.consistency_proof(old, new, stored.fetch)
    assert stored.asked == []


@pytest.mark.parametrize("level", [0, 8])
def test_missing_hashes_are_told_with_their_place(level):
    """A store that has lost hashes gives no proof, and the error says of which level, and from where."""
    stored = Stored(LEAVES[:600])
    del stored.levels[level][1:]
    with pytest.raises(IntegrityError, match=rf"of level {level} from \d+$"):
        tiles.root_of(600, stored.fetch)


def test_stored_hashes_of_another_width_are_refused():
    """A stored hash that was cut short gives no proof."""
    stored = Stored(LEAVES[:5])
    stored.levels[0][3] = stored.levels[0][3][:31]
    with pytest.raises(IntegrityError, match="32 bytes"):
        tiles.inclusion_proof(0, 5, stored.fetch)
