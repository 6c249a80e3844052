"""The life of the reservations: each is opened once and ended once, and no outcome is without an opening. Pure.

Kept are 16 bytes for each opening and each ending: 160 MB for ten million rows.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prism_vault_agent.central.verification.fault import Findings

NEED_OPENING: Final = frozenset({"success", "failure", "abandoned"})
PARTS: Final = 64


class Steps:
    """Openings and endings as two numbers each, in parts by the first, which is the reservation's: Python's hash of its name.

    That has 64 bits under a key that is secret, and the same in the processes that were copied from ours. The second number is
    the row's; it is negative for an ending that needs no opening.
    """

    def __init__(self) -> None:
        self.opened: list[list[int]] = [[] for _ in range(PARTS)]
        self.ended: list[list[int]] = [[] for _ in range(PARTS)]

    def extend(self, numbers: Iterable[int], reservations: Iterable[str], kinds: Iterable[str]) -> None:
        """Take rows."""
        opened, ended = self.opened, self.ended
        for n, name, kind in zip(numbers, map(hash, reservations), kinds, strict=True):
            if kind == "reserved":
                opened[name % PARTS] += (name, n)
            elif kind in NEED_OPENING:
                ended[name % PARTS] += (name, n)
            elif kind == "denied":
                ended[name % PARTS] += (name, -n)

    def packed(self) -> tuple[list[bytes], list[bytes]]:
        """Return the openings and the endings as :meth:`Reservations.extend` takes them."""
        return _packed(self.opened), _packed(self.ended)


def _packed(parts: Iterable[list[int]]) -> list[bytes]:
    return [array("q", part).tobytes() for part in parts]


class Reservations:
    """Every opening and ending as far as it was seen. In which order they come is the chains' to tell."""

    def __init__(self, findings: Findings) -> None:
        """Tell faults to ``findings``."""
        self._findings = findings
        self._opened = [array("q") for _ in range(PARTS)]
        self._ended = [array("q") for _ in range(PARTS)]

    def extend(self, opened: Sequence[bytes], ended: Sequence[bytes]) -> None:
        """Take what :class:`Steps` has packed."""
        for kept, more in ((self._opened, opened), (self._ended, ended)):
            for part, packed in zip(kept, more, strict=True):
                part.frombytes(packed)

    def end(self) -> None:
        """Tell what only shows when no row follows."""
        for opened, ended in zip(self._opened, self._ended, strict=True):
            names = set(opened[::2])
            if len(names) * 2 < len(opened):
                self._repeated(opened, "its reservation was opened before")
            ends = set(ended[::2])
            if len(ends) * 2 < len(ended):
                self._repeated(ended, "its reservation had ended before")
            if not ends <= names:
                for name, n in zip(ended[::2], ended[1::2], strict=True):
                    if n > 0 and name not in names:
                        self._findings.add(n, "it ends a reservation that was not opened")

    def _repeated(self, part: array[int], what: str) -> None:
        """Tell of each row whose reservation was in one before."""
        seen: set[int] = set()
        for name, n in zip(part[::2], part[1::2], strict=True):
            if name in seen:
                self._findings.add(abs(n), what)
            seen.add(name)
