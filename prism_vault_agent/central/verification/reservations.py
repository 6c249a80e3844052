"""The life of the reservations: each is opened once and ended once, and no outcome is without an opening. Pure.

Kept is each reservation that is open, and of all that were ever opened or ended 16 bytes: 160 MB for ten million rows.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prism_vault_agent.central.verification.fault import Findings

NEED_OPENING: Final = frozenset({"success", "failure", "abandoned"})
ENDINGS: Final = NEED_OPENING | {"denied"}
PARTS: Final = 256
MOST_EARLY: Final = 100_000


class _Once:
    """Ids that may come once each, and the row of each. Python's own hashes stand for them: 64 bits under a secret key."""

    def __init__(self) -> None:
        self._ids = [array("q") for _ in range(PARTS)]
        self._rows = [array("q") for _ in range(PARTS)]

    def add(self, name: str, n: int) -> None:
        hashed = hash(name)
        part = hashed % PARTS
        self._ids[part].append(hashed)
        self._rows[part].append(n)

    def repeated(self) -> Iterator[int]:
        """Yield the row of each id that was there before."""
        for ids, rows in zip(self._ids, self._rows, strict=True):
            if len(set(ids)) < len(ids):
                seen: set[int] = set()
                for one, n in zip(ids, rows, strict=True):
                    if one in seen:
                        yield n
                    seen.add(one)


class Reservations:
    """Every reservation as far as it was seen."""

    def __init__(self, findings: Findings) -> None:
        """Tell faults to ``findings``."""
        self._findings = findings
        self._open: dict[str, int] = {}
        self._early: dict[str, tuple[int, str]] = {}
        self._opened = _Once()
        self._ended = _Once()

    def add(self, n: int, reservation: str, kind: str) -> None:
        """Take the next row. One that ends a reservation may come before the one that opens it: see ``chains.py``."""
        if kind == "reserved":
            self._opened.add(reservation, n)
            if self._early.pop(reservation, None) is None:
                self._open[reservation] = n
        elif kind in ENDINGS:
            self._ended.add(reservation, n)
            if self._open.pop(reservation, None) is None and kind in NEED_OPENING:
                self._early.setdefault(reservation, (n, kind))
                if len(self._early) > MOST_EARLY:
                    self._not_open(*self._early.pop(next(iter(self._early))))

    def end(self) -> None:
        """Tell what only shows when no row follows."""
        for n, kind in self._early.values():
            self._not_open(n, kind)
        for n in self._opened.repeated():
            self._findings.add(n, "its reservation was opened before")
        for n in self._ended.repeated():
            self._findings.add(n, "its reservation had ended before")

    def _not_open(self, n: int, kind: str) -> None:
        self._findings.add(n, f"a {kind} of a reservation that is not open")
