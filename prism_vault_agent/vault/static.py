"""Static roles of the database engine: a user that stays, whose password the provider changes when it thinks fit.

There is no lease. When the password was set is the version of the path, and the role tells it without the password. The next
change is due when the ``ttl`` of a read has passed; a provider that looks every few seconds makes it somewhat later.
"""

from __future__ import annotations

from prism_vault_agent.errors import ProtocolError
from prism_vault_agent.model import Lease
from prism_vault_agent.vault import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CREDENTIALS = "static-creds/"
ROLES = "static-roles/"
SET = "last_vault_rotation"
TTL = "ttl"


def lease(path: str, data: dict[str, Any]) -> Lease:
    """Return what was read of a path below ``static-creds/``; ``seconds`` is at least 1 where it changes. Raises as below."""
    seconds = max(1, fields.duration(data, TTL)) if TTL in data else 0
    return Lease(path, version(data), seconds=seconds, created=fields.text(data, SET))


def version(data: dict[str, Any]) -> int:
    """Return when the password was set, in milliseconds since 1970, of an answer or a role's. Raises :class:`ProtocolError`."""
    from datetime import datetime  # noqa: PLC0415 - few secrets need it

    try:
        return int(datetime.fromisoformat(fields.text(data, SET)).timestamp() * 1000)
    except ValueError:
        raise ProtocolError("the answer's field last_vault_rotation is not a time", reason="malformed_answer") from None
