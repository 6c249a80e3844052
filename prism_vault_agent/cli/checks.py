"""What one check of ``doctor`` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

State = Literal["holds", "does not hold", "unknown"]

PROMISES: Final = {
    "G1": "what was released is on the audit log",
    "G2": "what was read was announced on the audit log",
    "G4": "no secret value where it does not belong",
    "G6": "what was given out can be taken back",
    "G7": "when in doubt, nothing is released",
    "G8": "the audit log cannot be changed unseen",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One guarantee: which promise it serves, whether it holds, why, and how to mend it.

    ``needed`` says that the configuration cannot do without it.
    """

    name: str
    promise: str
    state: State
    why: str
    mend: str = ""
    needed: bool = False

    def line(self) -> str:
        """Return the one line that a person reads."""
        wanting = self.state != "holds"
        needed = " (needed)" if wanting and self.needed else ""
        mend = f"; {self.mend}" if wanting and self.mend else ""
        return f"{self.state:13}  {self.promise}  {self.name}{needed}: {self.why}{mend}"


def judge(name: str, promise: str, *, holds: bool, why: str, mend: str, needed: bool = False) -> Check:
    """Return the check for a question that was answered with yes or no."""
    return Check(name, promise, "holds" if holds else "does not hold", why, mend, needed)
