"""Verification: one pass over the log, from whichever place, that recomputes everything and names the first bad index.

What it proves is told in ``docs/protocol.md``. Memory does not grow with the log but for 16 bytes for each opening or ending.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import merge
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

from prism_vault_agent.central.verification.chains import Chains
from prism_vault_agent.central.verification.drops import Drops
from prism_vault_agent.central.verification.elsewhere import Elsewhere
from prism_vault_agent.central.verification.fault import Fault, Findings
from prism_vault_agent.central.verification.reservations import Reservations
from prism_vault_agent.central.verification.row import NO_CHAIN, Looked
from prism_vault_agent.central.verification.tree import Sealed, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prism_vault_agent.proof.keys import VerifyingKey

    # Applies a function to each part, in their order; may do so elsewhere, and a few parts ahead.
    Spread = Callable[[Callable[[Any], list[Looked]], Iterable[Any]], Iterable[list[Looked]]]


class Log(Protocol):
    """A log to verify, in whatever form it is. ``damage`` is what could not be read of it, once it was read.

    It begins at an index, or at 0 behind all rows that were yielded.
    """

    damage: Fault | None

    def expected(self) -> int:
        """Return about how many rows there are; 0 where nobody knows."""

    def parts(self) -> Iterator[Any]:
        """Yield all rows, some thousands at once: first those with a leaf in its order, then those without one by ``n``."""

    @property
    def look(self) -> Callable[[Any], list[Looked]]:
        """The function of a module that looks at the rows of one part."""

    def checkpoints(self) -> Iterator[Sealed]:
        """Yield the checkpoints that are known beforehand, by size."""

    def nodes(self) -> Mapping[int, Iterator[tuple[int, bytes]]]:
        """Return for each level of stored nodes their positions and hashes, in order; nothing where none are stored."""

    def unguarded(self) -> list[str]:
        """Return which guards against changes are not there, where the log's form has such."""

    def seal(self) -> Sealed | None:
        """Return the checkpoint of exactly the rows that were yielded, once they were, where the log's form has one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much was looked at, and the fault with the lowest index, or None.

    Rows beyond ``leaves`` have none yet; the bodies of ``dropped`` ones are gone. ``signers`` are the origins of the checkpoints.
    ``unguarded`` says which tables no longer refuse which change: nothing need have been changed yet.
    """

    rows: int
    chains: int
    leaves: int
    checkpoints: int
    dropped: int
    signers: frozenset[str]
    unguarded: tuple[str, ...]
    fault: Fault | None


def verify(
    log: Log,
    *,
    keys: Sequence[VerifyingKey] = (),
    elsewhere: Elsewhere | None = None,
    spread: Spread = map,
    progress: Callable[[int], None] = lambda _rows: None,
) -> Verdict:
    """Verify ``log``: every row, chain, reservation, leaf and checkpoint, and what is held ``elsewhere``.

    Signatures are verified where there are ``keys``. ``progress`` is told how many rows are done. Raises what reading the log
    raises.
    """
    held = Elsewhere() if elsewhere is None else elsewhere
    findings = Findings()
    chains, reservations, drops = Chains(findings), Reservations(findings), Drops(findings)
    sealed = merge(log.checkpoints(), sorted(held.checkpoints, key=attrgetter("size")), key=attrgetter("size"))
    tree = Tree(findings, sealed, log.nodes(), keys)
    rows = last = 0
    compared = bool(held.heads or held.leaves)
    for looked in spread(log.look, log.parts()):
        for row in looked:
            idx, n, leaf, chain, seq, prev, hashed, reservation, kind, wrong, dropping = row
            last = n or last + 1
            if wrong:
                findings.add(last, wrong)
            if idx is not None:
                tree.add(idx, n, leaf)
            if chain != NO_CHAIN:
                chains.add(n, chain, seq, prev, hashed, told=bool(wrong))
                reservations.add(n, reservation, kind)
            if dropping is not None:
                drops.add(n, dropping)
            if compared:
                held.compare(row, findings)
        rows += len(looked)
        progress(rows)
    if log.damage is not None:
        findings.add(log.damage.n or last + 1, log.damage.what)
    tree.end()
    if (seal := log.seal()) is not None:
        tree.check(seal)
    chains.end()
    reservations.end()
    drops.end()
    held.end(last, findings)
    signers, unguarded = frozenset(tree.signers), tuple(log.unguarded())
    return Verdict(rows, len(chains), tree.size, tree.checkpoints, drops.count, signers, unguarded, findings.first())
