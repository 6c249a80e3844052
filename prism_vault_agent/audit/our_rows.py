"""Rows of this host that central has signed for, and which of them is to be proved: that is drawn by lot, so nobody can know."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prism_vault_agent.audit.receipts import Promise

_LOT: Final = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Row:
    """A row of ours that central has signed for, and the receipt that says so."""

    n: int
    leaf: bytes
    promise: Promise


class OurRows:
    """Which of our rows is to be proved: since the last one each was as likely to be drawn."""

    def __init__(self) -> None:
        self.asked: Row | None = None
        self.newest: Row | None = None
        self._drawn: Row | None = None
        self._count = 0
        self._since = 0.0

    def add(self, given: Promise) -> None:
        """Add the rows of a receipt."""
        self._count += len(given.rows)
        lot = _LOT.randrange(self._count)  # one of all until now, each as likely
        if lot < len(given.rows):
            self._drawn = Row(*given.rows[lot], given)
        self.newest = Row(*given.rows[-1], given)

    def resume(self, row: Row | None) -> None:
        """Begin with the newest row that an earlier agent knew of."""
        self.asked, self._since = row, time.monotonic()
        self.newest = self.newest or row

    def draw(self) -> Row | None:
        """Return the row that is being proved, or else the next one; none where there is no new one."""
        if self.asked is None:
            self.asked, self._since = self._drawn, time.monotonic()
            self._drawn, self._count = None, 0
        return self.asked

    def proved(self) -> None:
        """Take note that the row asked for is proved. Until the newest one was it, that one is still to be drawn."""
        if self._drawn is None and self.asked != self.newest:
            self._drawn, self._count = self.newest, 1
        self.asked = None

    @property
    def pending(self) -> bool:
        """Whether a row is still to be proved."""
        return bool(self.asked or self._drawn)

    def waiting(self) -> float:
        """Return for how many seconds a proof of the row has been asked for."""
        return time.monotonic() - self._since
