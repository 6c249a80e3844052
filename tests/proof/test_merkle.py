"""The tree: roots, growth and the verification of proofs, against RFC 9162's definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof import merkle
from prism_vault_agent.proof.merkle import EMPTY, Frontier, Node
from tests.proof.trees import CT_LEAVES, CT_ROOTS, Defined, numbered

LEAVES = numbered(1000)


def test_the_roots_are_those_of_certificate_transparency():
    """The trees of the reference implementation's eight leaves have the roots that everybody else computes."""
    tree = Frontier()
    assert tree.root().hex() == CT_ROOTS[0] == EMPTY.hex()
    for leaf, root in zip(CT_LEAVES, CT_ROOTS[1:], strict=True):
        tree.append(merkle.leaf_hash(leaf))
        assert tree.root().hex() == root


@given(st.lists(st.integers(0, 300), max_size=6))
def test_growth_in_any_steps_gives_the_same_tree(steps: list[int]) -> None:
    """However leaves arrive, one by one or many at once, root and tiles are those of the definitions."""
    tree = Frontier()
    complete: list[Node] = []
    for step in steps:
        before = tree.copy()
        complete += tree.extend(LEAVES[tree.size : tree.size + step], levels=(2, 8))
        assert before.size + min(step, max(0, 1000 - before.size)) == tree.size
    defined = Defined(LEAVES)
    assert tree.root() == defined.root(0, tree.size)
    expected = [
        Node(level, index, defined.root(index << level, index + 1 << level))
        for level in (2, 8)
        for index in range(tree.size >> level)
    ]
    assert sorted(complete) == expected


@pytest.mark.parametrize("width", [0, 31, 33])
def test_a_hash_of_another_width_is_refused(width):
    """What has not 32 bytes never becomes part of a tree."""
    tree = Frontier()
    with pytest.raises(IntegrityError):
        tree.extend([LEAVES[0], bytes(width)])
    with pytest.raises(IntegrityError):
        Frontier(1, [bytes(width)])
    assert tree.size == 0


@pytest.mark.parametrize(("size", "peaks"), [(-1, 0), (0, 1), (3, 1), (4, 2)])
def test_peaks_that_cannot_be_of_that_size_are_refused(size, peaks):
    """A tree has one peak for each bit of its size."""
    with pytest.raises(IntegrityError, match="peaks"):
        Frontier(size, LEAVES[:peaks])
