"""The tree: roots, growth and the verification of proofs, against RFC 9162's definitions."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof import merkle
from prism_vault_agent.proof.merkle import EMPTY, Frontier, Node, verify_consistency, verify_inclusion
from tests.proof.trees import CT_LEAVES, CT_ROOTS, Defined, numbered
from tests.support.soak import count

LEAVES = numbered(1000)
DEFINED = Defined(LEAVES)


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
    assert tree.root() == DEFINED.root(0, tree.size)
    expected = [
        Node(level, index, DEFINED.root(index << level, index + 1 << level))
        for level in (2, 8)
        for index in range(tree.size >> level)
    ]
    assert sorted(complete) == expected


@pytest.mark.parametrize("level", range(5))
def test_growth_by_whole_subtrees_gives_the_same_tree(level: int) -> None:
    """Where subtrees are added by their roots, peaks and completed nodes are those of the leaves."""
    width = 1 << level
    for before in range(0, 4 * width, width):
        one, other = Frontier(), Frontier()
        one.extend(LEAVES[:before])
        other.extend(LEAVES[:before])
        roots = [DEFINED.root(at, at + width) for at in range(before, before + 5 * width, width)]
        complete = one.extend(LEAVES[before : before + 5 * width], (level, level + 1))
        assert other.extend(roots, (level, level + 1), level) == complete
        assert (one.size, one.peaks) == (other.size, other.peaks)


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


def _flips(value: bytes) -> Iterator[bytes]:
    """Yield ``value`` with each single bit changed."""
    number = int.from_bytes(value)
    for bit in range(len(value) * 8):
        yield (number ^ 1 << bit).to_bytes(len(value))


def _flipped_paths(proof: list[bytes]) -> Iterator[list[bytes]]:
    """Yield ``proof`` with each single bit of each hash changed."""
    for place, node in enumerate(proof):
        for flipped in _flips(node):
            yield [*proof[:place], flipped, *proof[place + 1 :]]


def _sizes(proofs: int) -> Iterator[tuple[int, int]]:
    """Yield a leaf's index and the size of a tree with it, small ones and large ones."""
    drawn = random.Random(9162)
    for _ in range(proofs):
        size = drawn.randint(1, len(LEAVES) >> drawn.randrange(10))
        yield drawn.randrange(size), size


def test_no_inclusion_proof_survives_a_changed_bit():
    """Every single bit of the proof, the root, the leaf and the index counts."""
    for index, size in _sizes(count(15, 500)):
        root, leaf, proof = DEFINED.root(0, size), LEAVES[index], DEFINED.path(index, 0, size)
        assert verify_inclusion(leaf, index, size, proof, root)
        assert not any(verify_inclusion(leaf, index, size, wrong, root) for wrong in _flipped_paths(proof))
        assert not any(verify_inclusion(leaf, index, size, proof, wrong) for wrong in _flips(root))
        assert not any(verify_inclusion(wrong, index, size, proof, root) for wrong in _flips(leaf))
        assert not any(verify_inclusion(leaf, index ^ 1 << bit, size, proof, root) for bit in range(64))


def test_no_consistency_proof_survives_a_changed_bit():
    """Every single bit of the proof, of both roots and of the old size counts."""
    for index, new in _sizes(count(15, 500)):
        old = index + 1
        before, after, proof = DEFINED.root(0, old), DEFINED.root(0, new), DEFINED.subproof(old, 0, new, known=True)
        assert verify_consistency(old, before, new, after, proof)
        assert not any(verify_consistency(old, before, new, after, wrong) for wrong in _flipped_paths(proof))
        assert not any(verify_consistency(old, wrong, new, after, proof) for wrong in _flips(before))
        assert not any(verify_consistency(old, before, new, wrong, proof) for wrong in _flips(after))
        assert not any(verify_consistency(old ^ 1 << bit, before, new, after, proof) for bit in range(64))


@given(st.integers(1, 999), st.data())
def test_a_history_that_was_changed_is_never_consistent(new: int, data: st.DataObject) -> None:
    """From a tree with one other leaf, no honest proof of growth verifies."""
    old = data.draw(st.integers(1, new))
    changed = data.draw(st.integers(0, old - 1))
    other = Defined([*LEAVES[:changed], LEAVES[999], *LEAVES[changed + 1 : old]])
    proof = DEFINED.subproof(old, 0, new, known=True)
    assert verify_consistency(old, DEFINED.root(0, old), new, DEFINED.root(0, new), proof)
    assert not verify_consistency(old, other.root(0, old), new, DEFINED.root(0, new), proof)


HASHES = st.sampled_from([*LEAVES[:4], EMPTY, b"", bytes(31), bytes(33)])
NUMBERS = st.integers(-2, 9) | st.integers(-(2**64), 2**64)


@given(NUMBERS, NUMBERS, st.lists(HASHES, max_size=4), HASHES, HASHES)
def test_any_input_has_an_answer(first: int, second: int, proof: list[bytes], one: bytes, two: bytes) -> None:
    """Whatever a peer sends is judged without an error, and proves nothing but what is trivially so."""
    if verify_inclusion(one, first, second, proof, two):
        assert (first, second, proof, len(one)) == (0, 1, [], 32) and one == two
    if verify_consistency(first, one, second, two, proof):
        assert first == second > 0 and proof == [] and one == two and len(one) == 32


def test_from_an_empty_tree_nothing_is_proved():
    """Sizes of 0 are refused even where both roots are that of no leaves."""
    assert not verify_consistency(0, EMPTY, 0, EMPTY, [])
    assert not verify_consistency(0, EMPTY, 1, LEAVES[0], [])
    assert not verify_inclusion(EMPTY, 0, 0, [], EMPTY)
