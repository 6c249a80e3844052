"""Rows of access and the audit log: what is not on the log as it stands here gives nobody anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.audit.event import parse
from prism_vault_agent.central.config import OWN_HOST

if TYPE_CHECKING:
    from collections.abc import Mapping


def recorded(event: bytes | None, told: Mapping[str, object]) -> bool:
    """Tell whether the event of a row is central's own and says what the row says: all of ``told``.

    Whoever writes a policy or a token past central would have to put it on the log too, where witnesses keep it.
    """
    try:
        fields = parse(bytes(event or b""))
    except (ValueError, RecursionError):
        return False
    return all(fields.get(name) == value for name, value in {**told, "host": OWN_HOST}.items())
