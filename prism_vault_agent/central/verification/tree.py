"""The tree over the leaves, and whether each signed checkpoint was one of it. Pure.

One tree grows here from the leaves in their order. A checkpoint is true if the tree had its root when it had its size, so all
true checkpoints are consistent with each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.proof.merkle import SMALLEST_TILE, TILE_LEVELS, WIDTH, Frontier, Node
from prism_vault_agent.proof.note import Checkpoint, open_note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prism_vault_agent.central.verification.fault import Findings
    from prism_vault_agent.proof.keys import VerifyingKey

AT_ONCE: Final = 4_096


class Sealed(NamedTuple):
    """A checkpoint as it was read: its note, and the size and root that are kept beside it. ``where`` says who kept it."""

    size: int
    root: bytes
    note: str
    where: str = "the log"


class Tree:
    """The tree as it grows, and the checkpoints that it has still to reach."""

    def __init__(
        self,
        findings: Findings,
        sealed: Iterator[Sealed],
        nodes: Mapping[int, Iterator[tuple[int, bytes]]],
        keys: Sequence[VerifyingKey],
    ) -> None:
        """Tell faults to ``findings``. ``sealed`` come by size; ``nodes`` of each stored level, position and hash, by position.

        Without ``keys`` no signature is verified.
        """
        self.size = 0
        self.checkpoints = 0
        self.signers: set[str] = set()
        self._findings = findings
        self._sealed = sealed
        self._ahead = next(sealed, None)
        self._nodes = nodes
        self._keys = keys
        self._frontier = Frontier()
        self._gathered: list[bytes] = []
        self._sound = True
        self._first = 0  # the first row of those that no checkpoint has proved yet; where all are, of those that the last one has
        self._proved = True
        self._last = 0

    def add(self, idx: int, n: int, leaf: bytes | None) -> None:
        """Take the next leaf, number ``idx``, which is that of row ``n``."""
        if not self._sound:
            return
        if idx != self.size or type(leaf) is not bytes or len(leaf) != WIDTH:
            self._sound = False
            self._out_of_place(idx, n)
            return
        self._gathered.append(leaf)
        if self._proved:
            self._first, self._proved = n, False
        self._last = n
        self.size += 1
        if self._ahead is not None and self._ahead.size <= self.size:
            self._reach()
        elif len(self._gathered) == AT_ONCE:
            self._grow()

    def continued_by(self, first: int) -> bool:
        """Tell whether leaf ``first`` comes next; where something was wrong, whether it does is no matter any longer."""
        return first == self.size or not self._sound

    def add_leaves(self, numbers: Sequence[int], leaves: bytes, nodes: Sequence[bytes]) -> None:
        """Take the next leaves, which are those of the rows ``numbers``.

        ``nodes`` are the hashes of the nodes of the lowest stored level that are wholly over them.
        """
        self._grow()
        first, done = self.size, 0
        while self._sound and done < len(numbers):
            most = len(numbers) - done
            step = most if self._ahead is None else max(1, min(most, self._ahead.size - self.size))
            if self._proved:
                self._first, self._proved = numbers[done], False
            self._grow_by(first, leaves, nodes, done, done + step)
            done += step
            self.size += step
            self._last = numbers[done - 1]
            self._reach()

    def check(self, sealed: Sealed) -> None:
        """Tell whether a checkpoint is signed, and is that of the tree as it is now."""
        self._grow()
        self.checkpoints += 1
        try:
            text = open_note(sealed.note, *self._keys) if self._keys else sealed.note.rpartition("\n\n")[0] + "\n"
            said = Checkpoint.parse(text)
        except (PrismVaultError, TypeError, AttributeError) as error:
            why = error.message if isinstance(error, PrismVaultError) else "it is not text"
            rows = f"rows {self._first} to {self._last}"
            what = f"{rows} have no true checkpoint in {sealed.where}: that of {sealed.size} leaves: {why}"
            self._findings.add_stretch(self._first, self._last, what)
            return
        self.signers.add(said.origin)
        if (said.size, said.root) != (sealed.size, sealed.root):
            self._findings.add(self._last, f"the checkpoint of {sealed.size} leaves in {sealed.where} is not what its note says")
        elif self._keys and said.origin not in {key.name for key in self._keys}:
            self._findings.add(self._last, f"the checkpoint of {sealed.size} leaves in {sealed.where} is of another log")
        elif not self._sound:
            return
        elif said.size > self.size:
            what = f"the log ends with leaf {self.size - 1}, and {sealed.where} has a checkpoint of {said.size} leaves"
            self._findings.add(self._last + 1, what)
        elif said.root != self._frontier.root():
            self._sound = False
            what = f"rows {self._first} to {self._last} are not those of the checkpoint of {said.size} leaves in {sealed.where}"
            self._findings.add_stretch(self._first, self._last, what)
        else:
            self._proved = True

    def end(self) -> None:
        """Tell what only shows when no leaf follows."""
        self._grow()
        while self._ahead is not None:
            self.check(self._ahead)
            self._ahead = next(self._sealed, None)
        for level, stored in self._nodes.items():
            more = next(stored, None)
            if self._sound and more is not None and more[0] + 1 << level <= self.size:  # the log may have grown meanwhile
                self._wrong_node(level, more[0])

    def _reach(self) -> None:
        while self._ahead is not None and self._ahead.size <= self.size:
            self.check(self._ahead)
            self._ahead = next(self._sealed, None)

    def _out_of_place(self, idx: int, n: int) -> None:
        if idx > self.size:
            self._findings.add(self._last + 1, f"leaf {self.size} is missing, and its event with it")
        else:
            self._findings.add(n, "its leaf is another one's, or no hash at all")

    def _grow(self) -> None:
        self._compare(self._frontier.extend(self._gathered))
        self._gathered = []

    def _grow_by(self, first: int, leaves: bytes, nodes: Sequence[bytes], start: int, stop: int) -> None:
        """Take some of the leaves from number ``first`` on, by whole nodes where no checkpoint divides them."""
        before = -first % SMALLEST_TILE
        while start < stop:
            place, within = divmod(start - before, SMALLEST_TILE)
            whole = 0 if within else (stop - start) // SMALLEST_TILE
            if whole:
                self._compare(self._frontier.extend(nodes[place : place + whole], level=TILE_LEVELS[0]))
                start += whole * SMALLEST_TILE
            else:
                end = min(stop, start + SMALLEST_TILE - within)
                some = (leaves[at : at + WIDTH] for at in range(start * WIDTH, end * WIDTH, WIDTH))
                self._compare(self._frontier.extend(some))
                start = end

    def _compare(self, complete: Iterable[Node]) -> None:
        """Compare nodes with the stored ones."""
        for node in complete:
            if node.level in self._nodes and next(self._nodes[node.level], None) != (node.position, node.hash):
                self._wrong_node(node.level, node.position)
                self._nodes = {}

    def _wrong_node(self, level: int, position: int) -> None:
        what = f"the stored node {position} of level {level} is not what the leaves below it make"
        self._findings.add_stretch(self._first, self._last, what)
