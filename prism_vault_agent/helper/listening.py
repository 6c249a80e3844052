"""The helper's socket: systemd's, or one of its own that only the agent's user can connect to."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from prism_vault_agent.config.accounts import Accounts
from prism_vault_agent.errors import CannotCreate, ConfigError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

BACKLOG: Final = 64
FIRST_PASSED: Final = 3


def listening(path: str | None, environ: MutableMapping[str, str], user: str) -> socket.socket:
    """Return systemd's socket (sd_listen_fds(3)), or one of our own at ``path`` that only ``user`` can connect to."""
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid == str(os.getpid()) and count == "1":
        passed = socket.socket(fileno=FIRST_PASSED)
        os.set_inheritable(FIRST_PASSED, False)
        if (passed.family, passed.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            raise ConfigError("what systemd passed is no Unix socket of packets", mend="set ListenSequentialPacket=")
        return passed
    if path is None:
        raise ConfigError("systemd passed no socket", mend="start prism-vault-helper.socket, or name one with --socket")
    own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        earlier = os.umask(0o177)
        try:
            own.bind(path)
        finally:
            os.umask(earlier)
        uid = Accounts().uid(user)
        os.chown(path, -1 if uid is None else uid, -1, follow_symlinks=False)
        own.listen(BACKLOG)
    except OSError as error:
        raise CannotCreate(f"cannot make the socket {path}: {error.strerror}", mend="check its directory") from None
    return own
