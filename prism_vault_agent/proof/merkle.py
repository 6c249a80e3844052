"""The log's Merkle tree: how it grows, and how proofs are verified that a leaf is in it and that it only grew. Pure.

The tree is that of RFC 6962, section 2.1 (unchanged in RFC 9162, section 2.1), over SHA-256. A hash is 32 bytes, a size
the number of leaves, an index counts from 0. A node is named by its level (0 is a leaf) and its position in that level.
Proofs are made in ``proof/tiles.py``; a host needs only what is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from prism_vault_agent.errors import IntegrityError

EMPTY: Final = sha256().digest()
WIDTH: Final = 32
TILE_LEVELS: Final = (8, 16, 24)
SMALLEST_TILE: Final = 1 << TILE_LEVELS[0]


class Node(NamedTuple):
    """The root of the perfect subtree of ``2**level`` leaves at ``position``, which counts such subtrees from 0."""

    level: int
    position: int
    hash: bytes


# The leaves from the first number up to, and without, the second.
Span = tuple[int, int]


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of the leaf that holds ``data``."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two others."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that grows: its size and the roots of its perfect subtrees, the largest first. Nothing else is kept.

    Raises ``IntegrityError`` where ``peaks`` cannot be those of ``size`` leaves, or a hash has not 32 bytes.
    """

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)
        if size < 0 or len(self.peaks) != size.bit_count():
            raise IntegrityError(f"{len(self.peaks)} hashes cannot be the peaks of a tree of {size} leaves")
        check_width(self.peaks)

    def append(self, leaf: bytes) -> None:
        """Add one leaf, given by its hash."""
        self.extend((leaf,))

    def extend(self, hashes: Iterable[bytes], levels: Sequence[int] = TILE_LEVELS, level: int = 0) -> list[Node]:
        """Add leaves, given by their hashes, and return the perfect subtrees of these ``levels`` that they complete.

        With a ``level``, add the perfect subtrees of that level that the hashes are the roots of; the size must be a multiple of
        theirs.
        """
        row = list(hashes)
        check_width(row)
        complete: list[Node] = []
        new_peaks: list[bytes] = []
        first = self.size >> level
        self.size += len(row) << level
        while row:
            if level in levels:
                complete += [Node(level, first + place, found) for place, found in enumerate(row)]
            if first & 1:
                row.insert(0, self.peaks.pop())
            if len(row) & 1:
                new_peaks.append(row.pop())
            row = parents(row)
            first, level = first >> 1, level + 1
        self.peaks += reversed(new_peaks)
        return complete

    def root(self) -> bytes:
        """Return the root of the tree as it is now."""
        return fold(self.peaks) if self.peaks else EMPTY

    def copy(self) -> Frontier:
        """Return a tree of its own that is the same."""
        return Frontier(self.size, self.peaks)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether ``proof`` shows that the leaf with this hash is number ``index`` of ``size`` under ``root``.

    Trees of several sizes can have a leaf's way in common, so it is the signed checkpoint that binds ``size`` to ``root``.
    """
    if not 0 <= index < size or not _are_hashes((leaf, root, *proof)):
        return False
    path = siblings(index, size)
    if len(path) != len(proof):
        return False
    node = leaf
    for (start, _), sibling in zip(path, proof, strict=True):
        node = node_hash(sibling, node) if start < index else node_hash(node, sibling)
    return node == root


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether ``proof`` shows that the new tree begins with all leaves of the old one, in their order.

    From an empty tree there is nothing to prove: sizes of 0 are refused, so that nobody takes that for a proof.
    """
    if not 0 < old_size <= new_size or not _are_hashes((old_root, new_root, *proof)):
        return False
    path = division(old_size, new_size)
    nodes = [old_root, *proof] if path[0] == (0, old_size) else list(proof)
    if len(path) != len(nodes):
        return False
    older = newer = nodes[0]
    for (start, _), sibling in zip(path[1:], nodes[1:], strict=True):
        if start < old_size:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
        else:
            newer = node_hash(newer, sibling)
    return older == old_root and newer == new_root


def siblings(index: int, size: int) -> list[Span]:
    """Return the leaves under each sibling of the way from leaf ``index`` up to the root."""
    spans: list[Span] = []
    start, end = 0, size
    while end - start > 1:
        middle = _middle(start, end)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans[::-1]


def division(old: int, new: int) -> list[Span]:
    """Return the new tree as subtrees that end at or begin from ``old``: the one that ends there, then its siblings upwards."""
    spans: list[Span] = []
    start, end = 0, new
    while end != old:
        middle = _middle(start, end)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return [(start, old), *reversed(spans)]


def _middle(start: int, end: int) -> int:
    """Return where a subtree divides: after the largest power of two that is smaller than it."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def parents(row: Sequence[bytes]) -> list[bytes]:
    """Return the level above an even number of nodes. Most of the tree's time is spent here, hence no call of node_hash."""
    nodes = iter(row)
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(nodes, nodes, strict=True)]


def perfect_root(row: Sequence[bytes]) -> bytes:
    """Return the root over a row whose length is a power of two."""
    while len(row) > 1:
        row = parents(row)
    return row[0]


def fold(peaks: Sequence[bytes]) -> bytes:
    """Return the root over at least one peak, the largest first."""
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def _are_hashes(hashes: Sequence[bytes]) -> bool:
    return set(map(len, hashes)) <= {WIDTH}


def check_width(hashes: Sequence[bytes]) -> None:
    """Raise ``IntegrityError`` where a hash has not 32 bytes."""
    if not _are_hashes(hashes):
        raise IntegrityError(f"a hash of the tree has not {WIDTH} bytes", mend="verify the log")
