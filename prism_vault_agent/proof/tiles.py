"""Proofs made from what is stored of the tree: leaves, and the roots of tiles. Pure; the caller fetches.

Stored are the leaves' hashes and the roots of perfect subtrees of 256, 65,536 and 16,777,216 leaves (:data:`STORED_LEVELS`).
Everything else is computed, so that a proof from a tree of ten million leaves takes a few short reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof.merkle import TILE_LEVELS, Frontier, Span, check_width, division, fold, perfect_root, siblings

STORED_LEVELS: Final = (0, *TILE_LEVELS)


class Range(NamedTuple):
    """The ``length`` stored hashes of one level from position ``start`` on."""

    level: int
    start: int
    length: int


Fetch = Callable[[list[Range]], list[list[bytes]]]


def frontier_of(size: int, fetch: Fetch) -> Frontier:
    """Return the tree of the first ``size`` leaves. Raises ``IntegrityError`` where stored hashes are missing."""
    return Frontier(size, _subtrees([(0, size)], fetch)[0])


def root_of(size: int, fetch: Fetch) -> bytes:
    """Return the root of the first ``size`` leaves. Raises ``IntegrityError`` where stored hashes are missing."""
    return frontier_of(size, fetch).root()


def inclusion_proof(index: int, size: int, fetch: Fetch) -> list[bytes]:
    """Return the proof that leaf ``index`` is in the tree of the first ``size`` leaves (RFC 9162, section 2.1.3.1).

    ``fetch`` is called once, with every range that is needed, and answers with their hashes in that order. Raises
    ``ValueError`` unless ``0 <= index < size``, and ``IntegrityError`` where stored hashes are missing.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    return [fold(peaks) for peaks in _subtrees(siblings(index, size), fetch)]


def consistency_proof(old: int, new: int, fetch: Fetch) -> list[bytes]:
    """Return the proof that the first ``old`` leaves are still those of the tree of ``new`` (RFC 9162, section 2.1.4.1).

    ``fetch`` is as for :func:`inclusion_proof`. Raises ``ValueError`` unless ``0 < old <= new``, and ``IntegrityError``
    where stored hashes are missing.
    """
    if not 0 < old <= new:
        raise ValueError(f"no proof leads from a tree of {old} leaves to one of {new}")
    # The verifier has the old root. Where that is a node of the new tree, it is not sent.
    return [fold(peaks) for peaks in _subtrees([span for span in division(old, new) if span != (0, old)], fetch)]


def _subtrees(spans: list[Span], fetch: Fetch) -> list[list[bytes]]:
    """Return the roots of the perfect subtrees in each span, the largest first, from one call of ``fetch``."""
    wanted = [[_stored(*subtree) for subtree in _perfect(*span)] for span in spans]
    ranges = _merged(part for parts in wanted for part in parts)
    found: dict[tuple[int, int], bytes] = {}
    for (level, start, length), hashes in zip(ranges, fetch(ranges) if ranges else (), strict=True):
        if len(hashes) != length:
            raise IntegrityError(
                f"the log has {len(hashes)} of the {length} tree hashes of level {level} from {start}",
                mend="verify the log, and restore it from a backup that verifies",
            )
        check_width(hashes)
        found |= {(level, start + place): each for place, each in enumerate(hashes)}
    return [
        [perfect_root([found[level, start + i] for i in range(length)]) for level, start, length in parts] for parts in wanted
    ]


def _perfect(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield level and position of the perfect subtrees in a span, which begins where one at least as large could begin."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def _stored(level: int, position: int) -> Range:
    """Return the stored hashes from which a node is computed."""
    below = max(stored for stored in STORED_LEVELS if stored <= level)
    return Range(below, position << level - below, 1 << level - below)


def _merged(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges that cover all of these, one where they touch or are one node (that of the way itself) apart."""
    merged: list[Range] = []
    for level, start, length in sorted(ranges):
        if merged and merged[-1].level == level and start <= merged[-1].start + merged[-1].length + 1:
            merged[-1] = Range(level, merged[-1].start, start + length - merged[-1].start)
        else:
            merged.append(Range(level, start, length))
    return merged
