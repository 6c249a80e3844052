"""Making the agent's socket in the process of a test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prism_vault_agent.agent.front.listener import Listener, listen
from prism_vault_agent.config.settings import AgentSettings

if TYPE_CHECKING:
    from pathlib import Path


def settings(path: Path | str, *, mode: int = 0o600, uid: int | None = None, gid: int | None = None) -> AgentSettings:
    """Return settings for a socket at ``path``, ours unless told otherwise."""
    return AgentSettings(
        host="server1",
        socket=str(path),
        socket_uid=os.geteuid() if uid is None else uid,
        socket_gid=os.getegid() if gid is None else gid,
        socket_mode=mode,
        state="/nonexistent",
    )


def listening(path: Path | str, **options: int) -> Listener:
    """Return a listener at ``path``."""
    return listen(settings(path, **options), {})[0]
