"""Until when a process may use what it was given, by the clock alone: what its supervisor goes by while there is no agent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from prism_vault_agent.agent.freshness import Freshness
    from prism_vault_agent.agent.leases.leases import Leases
    from prism_vault_agent.model import Render
    from prism_vault_agent.scope import Reaction


@dataclass(frozen=True, slots=True)
class Ends:
    """The ends of releases: of their ``leases``, and of how long they may be used unconfirmed (``freshness``).

    ``on_revoke`` is what is done with who holds some paths of a release when these are taken back.
    """

    leases: Leases
    freshness: Freshness
    on_revoke: Callable[[Render, Collection[str]], Reaction]

    def of(self, render: Render) -> float | None:
        """Return when who holds a release is asked to end, if nothing happens before: CLOCK_BOOTTIME seconds, or infinity.

        None while that is not known, as just after the agent's start. What its scopes leave it with has no end.
        """
        children = self.leases.of(render.reservation.id)
        if not all(child.is_known for child in children):
            return None
        ends = [(child.ask_at, sorted(lease.path for lease in child.leases)) for child in children]
        ends += [(end, [path]) for path, end in self.freshness.ends(render).items()]
        return min((end for end, paths in ends if self.on_revoke(render, paths).does != "clear"), default=math.inf)


def in_milliseconds(end: float | None) -> str:
    """Return how an end is told; nothing where there is none."""
    return str(int(end * 1000)) if end is not None and end != math.inf else ""
