"""The renders that are under way: which number each has, and whether it may still become visible when it is done."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prism_vault_agent.agent.runs.run import released
from prism_vault_agent.errors import Denied

if TYPE_CHECKING:
    from prism_vault_agent.audit.target import Target
    from prism_vault_agent.model import Render
    from prism_vault_agent.scope import ScopeName


class UnderWay:
    """What has been said since a render began that means it."""

    def __init__(self) -> None:
        self._numbers: Counter[ScopeName] = Counter()
        self._clears: Counter[ScopeName] = Counter()
        self._revocations: list[Target] = []

    def after(self, scope: ScopeName, number: int) -> None:
        """Have the next generation of a scope get a number behind this one."""
        self._numbers[scope] = max(self._numbers[scope], number)

    def begin(self, scope: ScopeName) -> tuple[int, int, int]:
        """Return the number of the next generation, and what must not have grown when it is switched."""
        self._numbers[scope] += 1
        return self._numbers[scope], len(self._revocations), self._clears[scope]

    def allowed(self, host: str, render: Render, begun: tuple[int, int, int]) -> None:
        """Raise ``Denied`` where a revocation or a clear came that means a render under way."""
        _, since, clears = begun
        scope = render.reservation.grant.scopes[0]
        meant = any(target.means(released(host, render)) for target in self._revocations[since:])
        if meant or self._clears[scope.name] != clears:
            raise Denied("it was cleared while it was being rendered", mend="render it again, if it may be", reason="revoked")

    def void(self, scope: ScopeName) -> None:
        """Let none of a scope become visible."""
        self._clears[scope] += 1

    def void_all(self) -> None:
        """Let none that has begun become visible."""
        self._clears.update(self._numbers.keys())

    def bar(self, target: Target) -> None:
        """Let none become visible that a target means."""
        self._revocations.append(target)
