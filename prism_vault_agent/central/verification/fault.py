"""What a verification finds wrong, and which of several findings is told. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, at which index ``n`` of the log."""

    n: int
    what: str


@dataclass(slots=True)
class Findings:
    """Keeps the fault with the lowest index.

    Some faults are about a stretch of rows, of which the first bad one cannot be told: any row in it that is wrong by itself
    explains them, and is told instead.
    """

    _exact: Fault | None = None
    _stretch: tuple[Fault, int] | None = None

    def add(self, n: int, what: str) -> None:
        """Take a fault of one row; of several of one row the first that is given."""
        if self._exact is None or n < self._exact.n:
            self._exact = Fault(n, what)

    def add_stretch(self, first: int, last: int, what: str) -> None:
        """Take a fault of the rows from ``first`` to ``last``; of several the first that is given."""
        if self._stretch is None:
            self._stretch = (Fault(first, what), last)

    def first(self) -> Fault | None:
        """Return the fault to tell, or None."""
        if self._stretch is None:
            return self._exact
        fault, last = self._stretch
        return fault if self._exact is None or self._exact.n > last else self._exact
