"""Where things are when nobody says otherwise: for root the places of the host, for a user the XDG base directories."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST_HELPER: Final = "/run/prism-vault/helper.sock"
HOST_SOCKET: Final = "/run/prism-vault/agent.sock"
LONGEST_SOCKET_PATH: Final = 107


class Places(NamedTuple):
    """Absolute paths; ``socket``, ``cache``, ``files`` and ``helper`` are empty where the user has no place for one."""

    config: str
    socket: str
    state: str
    cache: str
    files: str
    helper: str


def places(environ: Mapping[str, str], uid: int) -> Places:
    """Return the default places of the user ``uid`` with this environment.

    See the XDG Base Directory Specification: a relative path in its variables is ignored. ``/tmp`` is never used.
    """
    cache = _base(environ, "XDG_CACHE_HOME")
    if uid == 0:
        return Places(
            config="/etc/prism-vault/agent.toml",
            socket=HOST_SOCKET,
            state="/var/lib/prism-vault",
            cache=cache or "/var/cache/prism-vault",
            files="/run/prism-vault/files",
            helper="",  # root needs none
        )
    home = _home(environ, uid)
    runtime = _base(environ, "XDG_RUNTIME_DIR")
    return Places(
        config=(_base(environ, "XDG_CONFIG_HOME") or f"{home}/.config/prism-vault") + "/agent.toml",
        socket=f"{runtime}/agent.sock" if runtime else "",
        state=_base(environ, "XDG_STATE_HOME") or f"{home}/.local/state/prism-vault",
        cache=cache or (f"{home}/.cache/prism-vault" if home else ""),
        files=f"{runtime}/files" if runtime else "",
        helper=HOST_HELPER,
    )


def _base(environ: Mapping[str, str], variable: str) -> str:
    path = environ.get(variable, "")
    return os.path.join(path, "prism-vault") if path.startswith("/") else ""


def _home(environ: Mapping[str, str], uid: int) -> str:
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return home.rstrip("/")
    try:
        return pwd.getpwuid(uid).pw_dir.rstrip("/")
    except KeyError:
        return ""
