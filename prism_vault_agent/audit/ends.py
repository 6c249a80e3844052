"""What the outbox has at its two ends: the way to central, and where events wait on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.audit.answers import Answer
    from prism_vault_agent.audit.event import Fields


class Post(Protocol):
    """Sends one batch of sealed events and returns an answer for each; raises ``AuditUnavailable`` when it is unknown."""

    async def __call__(self, bodies: Sequence[bytes]) -> list[Answer]:
        """Return the answers, in order."""


class Journal(Protocol):
    """Where events wait durably while central is away."""

    async def keep(self, *fields: Fields) -> None:
        """Keep these events until they are dropped."""

    async def drop(self, *event_ids: str) -> None:
        """Forget events that central has."""
