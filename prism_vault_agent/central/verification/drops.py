"""Rows whose bodies were dropped: each by an event of central's own, which says how many, and what remains of them. Pure.

What remains is one hash over their columns and the hashes of their bodies (``log/remains.py``), in the order of their leaves.
The event comes behind them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prism_vault_agent.central.verification.fault import Findings
    from prism_vault_agent.central.verification.row import Dropping


@dataclass(slots=True)
class _Remaining:
    """The rows that one event has dropped, as far as they were seen."""

    first: int
    last: int = 0
    count: int = 0
    lines: hashlib._Hash = field(default_factory=hashlib.sha256)


class Drops:
    """Every row without its body, until the event comes that has dropped it."""

    def __init__(self, findings: Findings) -> None:
        """Tell faults to ``findings``."""
        self.count = 0
        self._findings = findings
        self._remaining: dict[int, _Remaining] = {}

    def add(self, n: int, dropping: Dropping) -> None:
        """Take a row whose body was dropped, or an event that drops."""
        by, line, *dropped = dropping
        if by is not None:
            remaining = self._remaining.setdefault(by, _Remaining(n))
            remaining.last = n
            remaining.count += 1
            remaining.lines.update(line)
            self.count += 1
            return
        remaining = self._remaining.pop(n, _Remaining(n, n))
        if [remaining.count, remaining.lines.hexdigest()] != dropped:
            what = f"rows from {remaining.first} to {remaining.last} are not what remained where event {n} dropped bodies"
            self._findings.add_stretch(remaining.first, remaining.last, what)

    def end(self) -> None:
        """Tell what only shows when no row follows."""
        for by, remaining in self._remaining.items():
            what = f"the bytes of rows from {remaining.first} to {remaining.last} are gone, and event {by} did not drop them"
            self._findings.add_stretch(remaining.first, max(by, remaining.last), what)
