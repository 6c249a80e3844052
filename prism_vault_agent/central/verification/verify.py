"""Verification: one pass over the log, from whichever place, that recomputes everything and names the first bad index.

What it proves is told in ``docs/protocol.md``. Memory does not grow with the log but for 16 bytes for each opening or ending.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass
from functools import partial
from heapq import merge
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

from prism_vault_agent.central.verification.chains import Chains
from prism_vault_agent.central.verification.condensed import Condensed, look_and_condense
from prism_vault_agent.central.verification.drops import Drops
from prism_vault_agent.central.verification.elsewhere import Elsewhere
from prism_vault_agent.central.verification.fault import Fault, Findings
from prism_vault_agent.central.verification.reservations import Reservations, Steps
from prism_vault_agent.central.verification.row import NO_CHAIN, Looked
from prism_vault_agent.central.verification.tree import Sealed, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prism_vault_agent.proof.keys import VerifyingKey

    # Applies a function to each part, in their order; may do so elsewhere, and a few parts ahead.
    Spread = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


class Log(Protocol):
    """A log to verify, in whatever form it is."""

    def expected(self) -> int:
        """Return about how many rows there are; 0 where nobody knows."""

    def parts(self) -> Iterator[Any]:
        """Yield all rows, some thousands at once: first those with a leaf in its order, then those without one by ``n``.

        A part may say only where its rows are, for :attr:`look` to read them.
        """

    @property
    def look(self) -> Callable[[Any], list[Looked]]:
        """What looks at the rows of one part, and can do so in another process, and again."""

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
    sealed = merge(log.checkpoints(), sorted(held.checkpoints, key=attrgetter("size")), key=attrgetter("size"))
    taken = _Taken(sealed, log.nodes(), keys, held)
    parts: deque[Any] = deque()
    for found in spread(partial(look_and_condense, log.look), _kept(log.parts(), parts)):
        part = parts.popleft()
        if isinstance(found, list):
            taken.add(found)
        elif not taken.add_condensed(Condensed._make(found)):
            taken.add(log.look(part))
        progress(taken.rows)
    taken.tree.end()
    if (seal := log.seal()) is not None:
        taken.tree.check(seal)
    return taken.verdict(tuple(log.unguarded()))


def _kept(parts: Iterable[Any], kept: deque[Any]) -> Iterator[Any]:
    """Yield the parts, and keep each for its turn."""
    for part in parts:
        kept.append(part)
        yield part


class _Taken:
    """The checks across rows, as far as the rows were seen."""

    def __init__(
        self,
        sealed: Iterator[Sealed],
        nodes: Mapping[int, Iterator[tuple[int, bytes]]],
        keys: Sequence[VerifyingKey],
        held: Elsewhere,
    ) -> None:
        self.rows = 0
        self._last = 0
        self._findings = findings = Findings()
        self._chains, self._reservations, self._drops = Chains(findings), Reservations(findings), Drops(findings)
        self.tree = Tree(findings, sealed, nodes, keys)
        self._held = held

    def add_condensed(self, some: Condensed) -> bool:
        """Take what is left of rows, if they follow those before and are not to be compared one by one; else tell that not."""
        numbers = array("q", some.numbers)
        follow = self.tree.continued_by(some.first) and all(map(self._chains.continued_by, some.runs))
        if not follow or self._held.is_about(numbers, some.runs):
            return False
        self.tree.add_leaves(numbers, some.leaves, some.nodes)
        for run in some.runs:
            self._chains.add_run(run)
        self._reservations.extend(some.opened, some.ended)
        for n, dropping in some.droppings:
            self._drops.add(n, dropping)
        self.rows += len(numbers)
        self._last = numbers[-1]
        return True

    def add(self, looked: Iterable[Looked]) -> None:
        """Take rows one by one."""
        events: list[tuple[int, str, str]] = []
        for row in looked:
            idx, n, leaf, chain, seq, prev, hashed, reservation, kind, wrong, dropping = row
            self._last = n or self._last + 1
            self.rows += n > 0
            if wrong:
                self._findings.add(self._last, wrong)
            if idx is not None:
                self.tree.add(idx, n, leaf)
            if chain != NO_CHAIN:
                self._chains.add(n, chain, seq, prev, hashed, told=bool(wrong))
                events.append((n, reservation, kind))
            if dropping is not None:
                self._drops.add(n, dropping)
            self._held.compare(row, self._findings)
        if events:
            steps = Steps()
            steps.extend(*zip(*events, strict=True))
            self._reservations.extend(*steps.packed())

    def verdict(self, unguarded: tuple[str, ...]) -> Verdict:
        """Tell what only shows when no row follows, and all that was found."""
        for check in (self._chains, self._reservations, self._drops):
            check.end()
        self._held.end(self._last, self._findings)
        tree, fault = self.tree, self._findings.first()
        signers = frozenset(tree.signers)
        return Verdict(self.rows, len(self._chains), tree.size, tree.checkpoints, self._drops.count, signers, unguarded, fault)
