"""What others hold of the log: heads of chains, and receipts. Whatever central's database says now, they must be in it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prism_vault_agent.central.verification.chains import Run
    from prism_vault_agent.central.verification.fault import Findings
    from prism_vault_agent.central.verification.row import Chain, Looked
    from prism_vault_agent.central.verification.tree import Sealed


@dataclass(slots=True)
class Elsewhere:
    """What is held outside of the log, each with the name of the place: checkpoints by size, heads, and leaves by row.

    A head is the hash (hex) of event number ``seq`` of a host and epoch; a receipt promises the leaf's hash of a row.
    """

    checkpoints: list[Sealed] = field(default_factory=list)
    heads: dict[Chain, dict[int, tuple[str, str]]] = field(default_factory=dict)
    leaves: dict[int, tuple[bytes, str]] = field(default_factory=dict)

    def is_about(self, numbers: Iterable[int], runs: Iterable[Run]) -> bool:
        """Tell whether anything is held of these rows, or of events of these runs."""
        if self.leaves and any(n in self.leaves for n in numbers):
            return True
        return any(first <= seq <= last for chain, first, _, _, last, _ in runs for seq in self.heads.get(chain, ()))

    def compare(self, row: Looked, findings: Findings) -> None:
        """Compare a row with what is held of it."""
        _, n, leaf, chain, seq, _, hashed, *_ = row
        if (promised := self.leaves.pop(n, None)) is not None and leaf not in (None, promised[0]):
            findings.add(n, f"it is not the one that the receipt in {promised[1]} promises")
        heads = self.heads.get(chain)
        if heads is not None and (head := heads.pop(seq, None)) is not None and head[0] != hashed:
            findings.add(n, f"it is not event {seq} of host {chain[0]} that {head[1]} holds")

    def end(self, last: int, findings: Findings) -> None:
        """Tell what is held elsewhere and was not on the log, whose last row is ``last``."""
        for n, (_, where) in self.leaves.items():
            findings.add(min(n, last + 1), f"row {n}, which the receipt in {where} promises, is not on the log")
        for (host, _), heads in self.heads.items():
            for seq, (_, where) in heads.items():
                findings.add(last + 1, f"event {seq} of host {host}, which {where} holds, is not on the log")
