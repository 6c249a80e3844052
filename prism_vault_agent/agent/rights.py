"""Whether the agent's role has the rights that the configuration takes: asked by a worker with the agent's token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.agent.plain import bound
from prism_vault_agent.errors import Denied

if TYPE_CHECKING:
    from prism_vault_agent.agent.release import Reading
    from prism_vault_agent.agent.status import Status
    from prism_vault_agent.config.settings import Settings

SECONDS: Final = 10.0


async def rights(reading: Reading, settings: Settings, status: Status, asker: int) -> dict[str, Any]:
    """Return what the role lacks, and of how many rights. Raises ``Denied`` for who is neither root nor the agent's user."""
    if not status.may_revoke(asker, -1):
        told = "the rights of all scopes are not for every user"
        raise Denied(told, mend="run doctor as root or as the agent's user", reason="not_your_agent")
    deadline = time.monotonic() + SECONDS
    bindings = dict.fromkeys(binding for scope in settings.scopes.values() for binding in scope.bindings)
    job = {
        "do": "rights",
        "token": await reading.session.token(deadline),
        "bindings": bound(bindings),
        "mounts": reading.mounts.known,
        "deadline": deadline,
    }
    return await reading.workers.job(job, deadline)
