"""The agent's token at the provider, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Held:
    """The token and what is known of it. ``ends`` is CLOCK_MONOTONIC seconds; None for a token that does not end."""

    token: str
    accessor: str
    seconds: int
    renewable: bool
    ends: float | None
    policies: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return nothing that could be used."""
        return f"Held(accessor={self.accessor!r})"
