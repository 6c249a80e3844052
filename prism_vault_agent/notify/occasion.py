"""What every way of telling a consumer is given, and what it raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prism_vault_agent.errors import Unavailable

LONGEST_LINE: Final = 300


@dataclass(frozen=True, slots=True)
class Occasion:
    """That of which a consumer is told: the generation of a scope, and the directory that it is in.

    ``helper`` is the socket of the helper, which signals other users' processes for an agent that may not; or nothing.
    """

    scope: str
    generation: int
    directory: str
    helper: str = ""


def not_told(message: str, mend: str = "") -> Unavailable:
    """Return the error of a consumer that could not be told, or that failed when it was."""
    return Unavailable(message, mend=mend, reason="notify_failed")


def one_line(text: bytes) -> str:
    """Return the first line of what a service of the host answered, bounded, with nothing that could forge a line of ours."""
    first = next((line for line in text.decode("utf-8", "replace").splitlines() if line.strip()), "")
    return "".join(each if each.isprintable() else "?" for each in first.strip())[:LONGEST_LINE]
