"""Who is told of changed files, and who judges whether all is well with them: simulated, with what each knows."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

from prism_vault_agent.notify.occasion import not_told
from tests.model.configuration import TELLS
from tests.model.kept import values_in
from tests.model.seen import Seen

if TYPE_CHECKING:
    from pathlib import Path

    from prism_vault_agent.notify.occasion import Occasion
    from prism_vault_agent.scope import Notify
    from tests.model.seen import Out

LATENCY = (0.01, 1.5)


class Told(Seen):
    """A host with consumers. ``deaf``: they fail when they are told; ``ill``: nothing that is new is found to be well.

    ``behind`` says of each scope whose consumer does not know what is there since when that is so, on CLOCK_MONOTONIC;
    ``passed`` are the values of files that were found to be well, ``successors`` says of each generation that was kept which
    one took its place.
    """

    def __init__(self, template: Path) -> None:
        self.deaf = self.ill = False
        self.behind: dict[str, float] = {}
        self.passed: set[str] = set()
        self.successors: dict[str, Out] = {}
        self._firsts: Counter[str] = Counter()
        self._knows: dict[str, frozenset[str]] = {}
        super().__init__(template)

    async def _tell(self, notify: Notify, occasion: Occasion) -> str:
        before, first = self._contents(occasion.scope), self._firsts[occasion.scope]
        await asyncio.sleep(random.uniform(*LATENCY))
        if notify.target == ("/health",):
            if self.ill:
                raise not_told("not well")
            self.passed |= before
        elif self.deaf:
            raise not_told("deaf")
        elif occasion.scope in self._inodes and self._firsts[occasion.scope] == first:
            self._know(occasion.scope, before)
        return ""

    def _know(self, name: str, contents: frozenset[str]) -> None:
        self._knows[name] = contents
        if contents == self._contents(name):
            self.behind.pop(name, None)
        else:
            self.behind.setdefault(name, self.clock.monotonic)

    def _contents(self, name: str) -> frozenset[str]:
        try:
            return frozenset(value for path in (self.files / name).glob("*") for value in values_in(path.read_text()))
        except FileNotFoundError:
            return frozenset()

    def used(self, values: set[str]) -> list[str]:
        """Return the scopes whose consumers have some of these values, and know of no newer ones."""
        return [name for name in TELLS if values & self._knows.get(name, frozenset())]

    def _on_revoke(self, accessor: str) -> None:
        super()._on_revoke(accessor)
        # The agent counts from before it asked, so to it a lease ends somewhat earlier than to the provider.
        lasting = [lease for lease in self.provider.leases.values() if lease.ends > self.clock.boot + 1.0]
        values = {lease.value for lease in lasting if lease.token.accessor == accessor}
        if used := self.used(values):
            self.defects.append(f"leases: those of files of {used} were revoked, which their consumers still use")

    def _gone(self, name: str) -> None:
        self._knows.pop(name, None)
        self.behind.pop(name, None)

    def _switched(self, name: str, *, first: bool) -> None:
        super()._switched(name, first=first)
        self._firsts[name] += first
        out = {each.what: each for each in self.out() if name in each.scopes}
        if kept := out.get(f"kept files of {name}"):
            self.successors[kept.reservation] = out[f"files of {name}"]
        if name in TELLS:
            self._know(name, self._contents(name) if first else self._knows.get(name, frozenset()))
