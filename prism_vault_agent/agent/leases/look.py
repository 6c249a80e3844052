"""Looks at leases and their child tokens: how long each still lives, asked as often as is configured and the budget lets."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.agent.leases.child import now, portions
from prism_vault_agent.errors import PrismVaultError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from prism_vault_agent.agent.budget import Budget
    from prism_vault_agent.agent.leases.child import Child
    from prism_vault_agent.worker.messages import Message

log = structlog.get_logger()


class LeaseLook:
    """One look after the other, each through ``job``, ``interval`` seconds apart and within ``budget``."""

    def __init__(self, job: Callable[[Message], Awaitable[Message]], interval: float, budget: Budget) -> None:
        """The first is due after an interval."""
        self._job = job
        self._interval = interval
        self._budget = budget
        self._under_way = False
        self._plan()

    def due(self, at: float) -> bool:
        """Tell whether it is time for the next one, and none is under way."""
        return not self._under_way and at >= self._next

    def begin(self) -> None:
        """Take note that one begins, with :meth:`at`."""
        self._under_way = True
        self._plan()

    async def at(self, held: Iterable[Child], told: Callable[[Child, dict[str, int]], None]) -> None:
        """Ask for these, and tell what each has left. What cannot be asked is asked again at the next look."""
        try:
            for some in portions(held, self._budget.most):
                accessors = [child.accessor for child in some]
                leases = [lease_id for child in some for lease_id in child.lease_ids]
                await self._budget.take(len(accessors) + len(leases))
                left = (await self._job({"do": "left", "accessors": accessors, "leases": leases}))["left"]
                for child in some:
                    child.confirmed = now()
                    told(child, left)
        except PrismVaultError as error:
            log.warning("leases.not_looked_at", reason=error.reason, message=error.message)
        finally:
            self._under_way = False

    def _plan(self) -> None:
        self._next = now() + self._interval * random.uniform(0.8, 1.0)  # noqa: S311 - jitter is no secret
