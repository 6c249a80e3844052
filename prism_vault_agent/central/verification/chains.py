"""The chains of the hosts: each event names its host, epoch, number and the hash of the one before. Pure.

Rows come nearly in the order of their chain. Where a replica took its numbers early, one can come before the one that it follows,
so a row whose turn has not come yet waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prism_vault_agent.audit.event import FIRST
from prism_vault_agent.central.verification.row import Chain

if TYPE_CHECKING:
    from prism_vault_agent.central.verification.fault import Findings

# Of one chain. Those that come too early are of one transaction; more than that have lost the row that they wait for.
MOST_WAITING: Final = 10_000
# Rows of one chain, each linked to the one before it: the chain, number and prev of the first, n, number and hash of the last.
Run = tuple[Chain, int, str, int, int, str]
Waiting = tuple[int, str, str, bool]  # n, the hash that it names, the one that it has, whether it is wrong by itself


@dataclass(slots=True)
class _Link:
    """The last row of a chain, and which row must be bad if the next one agrees with it (0: none).

    ``told`` says that something is wrong with the row by itself, so that nothing need be told of its links.
    """

    n: int = 0
    seq: int = 0
    hash: str = FIRST
    told: bool = False
    suspect: int = 0


class Chains:
    """Every chain as far as it was seen."""

    def __init__(self, findings: Findings) -> None:
        """Tell faults to ``findings``."""
        self._findings = findings
        self._links: dict[Chain, _Link] = {}
        self._waiting: dict[Chain, dict[int, Waiting]] = {}

    def __len__(self) -> int:
        """Return how many chains there are."""
        return len(self._links)

    def add(self, n: int, chain: Chain, seq: int, prev: str, hashed: str, *, told: bool = False) -> None:
        """Take the next row: its place in its chain, the hash that it names and the one that it has.

        ``told`` says that something is wrong with the row by itself.
        """
        link = self._links.get(chain)
        if link is None:
            link = self._links[chain] = _Link()
        if seq != link.seq + 1:
            self._misplaced(link, chain, seq, (n, prev, hashed, told))
            return
        self._follow(link, n, prev, hashed, told)
        if chain in self._waiting:
            self._go_on(link, self._waiting[chain])

    def continued_by(self, run: Run) -> bool:
        """Tell whether a run comes next, and nothing is wrong or waits before it."""
        chain, seq, prev, *_ = run
        link = self._links.get(chain)
        if link is None:
            return (seq, prev) == (1, FIRST)
        return (link.seq + 1, link.hash) == (seq, prev) and not (link.told or link.suspect or self._waiting.get(chain))

    def add_run(self, run: Run) -> None:
        """Take the rows of a run that comes next."""
        chain, _, _, n, seq, hashed = run
        self._links[chain] = _Link(n, seq, hashed)

    def end(self) -> None:
        """Tell what only shows when no row follows."""
        for chain, waiting in self._waiting.items():
            if waiting:
                self._missing(chain[0], self._links[chain], waiting)
        for link in self._links.values():
            if link.suspect:
                self._findings.add(link.suspect, "its bytes are not those that the next event of its host was linked to")

    def _follow(self, link: _Link, n: int, prev: str, hashed: str, told: bool) -> None:  # noqa: FBT001 - as it waited
        if told or link.told:
            link.suspect = 0
        elif prev != link.hash or link.suspect:
            self._mend(link, n, linked=prev == link.hash)
        link.n, link.seq, link.hash, link.told = n, link.seq + 1, hashed, told

    def _mend(self, link: _Link, n: int, *, linked: bool) -> None:
        """Find out what was changed, where a row is not linked: the row behind it tells which of the two."""
        suspect = 0 if linked else link.n or n
        if link.suspect:
            # The row before did not link to the one before it. If this one links to it, it is as it was sent.
            self._findings.add(link.suspect if linked else link.n, "its bytes are not those that its neighbours are linked to")
            suspect = 0
        link.suspect = suspect

    def _misplaced(self, link: _Link, chain: Chain, seq: int, row: Waiting) -> None:
        waiting = self._waiting.setdefault(chain, {})
        if seq <= link.seq or seq in waiting:
            self._findings.add(row[0], f"event {seq} of host {chain[0]} is there once more, or in another's place")
            return
        waiting[seq] = row
        if len(waiting) > MOST_WAITING:
            self._missing(chain[0], link, waiting)
            link.seq = min(waiting) - 1
            link.hash = waiting[link.seq + 1][1]
            self._go_on(link, waiting)

    def _go_on(self, link: _Link, waiting: dict[int, Waiting]) -> None:
        """Take the rows that waited for the one that came."""
        while (row := waiting.pop(link.seq + 1, None)) is not None:
            self._follow(link, *row)

    def _missing(self, host: str, link: _Link, waiting: dict[int, Waiting]) -> None:
        seq, row = min(waiting.items())
        self._findings.add(row[0], f"events {link.seq + 1} to {seq - 1} of host {host} before it are missing")
