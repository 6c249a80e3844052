"""What is left of some thousand rows with which nothing is wrong, for the checks across rows. Pure.

Rows are looked at in other processes, and most are as they must be and follow each other. Of those only that much comes back as
the tree, the chains and the reservations need: a twentieth of the work. Where anything in a part is not as it must be, or does
not follow what came before, all of its rows are looked at one by one, so that what is told is exact.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from prism_vault_agent.central.verification.reservations import Steps
from prism_vault_agent.proof.merkle import SMALLEST_TILE, WIDTH, perfect_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prism_vault_agent.central.verification.chains import Run
    from prism_vault_agent.central.verification.row import Chain, Dropping, Looked


class Condensed(NamedTuple):
    """Rows with leaves from number ``first`` on, without a gap.

    ``numbers`` are their ``n``, 8 bytes each; ``nodes`` the hashes of the tree's nodes of the lowest stored level that are wholly
    over these leaves; ``opened`` and ``ended`` as ``Steps`` packs them.
    """

    first: int
    numbers: bytes
    leaves: bytes
    nodes: list[bytes]
    runs: list[Run]
    opened: list[bytes]
    ended: list[bytes]
    droppings: list[tuple[int, Dropping]]


def look_and_condense(look: Callable[[Any], list[Looked]], part: Any) -> tuple[Any, ...] | list[Looked]:
    """Return what ``look`` finds, as :class:`Condensed` has it where it can be; both as marshal can write them."""
    looked = look(part)
    condensed = condense(looked)
    return looked if condensed is None else tuple(condensed)


def condense(looked: Sequence[Looked]) -> Condensed | None:
    """Return what is left of the rows, or None where something is wrong with one, or it does not follow those before it."""
    if not looked:
        return None
    places, numbers, leaves, chains, seqs, prevs, hashes, reservations, kinds, wrongs, droppings = zip(*looked, strict=True)
    first = places[0]
    if any(wrongs) or first is None or places != tuple(range(first, first + len(places))) or not _are_hashes(leaves):
        return None
    runs: dict[Chain, list[Any]] = {}
    for chain, n, seq, prev, hashed in zip(chains, numbers, seqs, prevs, hashes, strict=True):
        run = runs.get(chain)
        if run is None:
            runs[chain] = [seq, prev, n, seq, hashed]
        elif seq == run[3] + 1 and prev == run[4]:
            run[2], run[3], run[4] = n, seq, hashed
        else:
            return None
    steps = Steps()
    steps.extend(numbers, reservations, kinds)
    packed = array("q", numbers).tobytes()
    followed: list[Any] = [(chain, *run) for chain, run in runs.items()]
    dropped = [(n, dropping) for n, dropping in zip(numbers, droppings, strict=True) if dropping] if any(droppings) else []
    return Condensed(first, packed, b"".join(leaves), _nodes(first, leaves), followed, *steps.packed(), dropped)


def _are_hashes(leaves: Sequence[Any]) -> bool:
    return set(map(type, leaves)) == {bytes} and set(map(len, leaves)) == {WIDTH}


def _nodes(first: int, leaves: Sequence[bytes]) -> list[bytes]:
    begin = -first % SMALLEST_TILE
    ends = range(begin + SMALLEST_TILE, len(leaves) + 1, SMALLEST_TILE)
    return [perfect_root(leaves[end - SMALLEST_TILE : end]) for end in ends]
