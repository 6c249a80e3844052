"""The way out for an agent that has no network: a Unix socket for each server, whose other end is that server.

What listens there connects to one server and passes bytes on (systemd-socket-proxyd(8): ``systemd/prism-vault-relay@.socket``).
TLS is between us and the server, as ever. The name of the socket, and of its unit, is the server's address.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DIRECTORY = "/run/prism-vault/relay"
# By which the agent's unit says that it has no network.
VARIABLE = "PRISM_VAULT_RELAY"


def name_of(url: str) -> str:
    """Return the ``HOST:PORT`` of a server, with the port of its scheme where it names none."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def socket_of(directory: str, host: str, port: int) -> str:
    """Return the path of the socket that leads to a server: its address is its name."""
    return f"{directory}/{host}:{port}"


def unit_of(name: str, kind: str = "socket") -> str:
    """Return the unit whose socket leads to the server of a name, or the one of another kind that belongs to it."""
    return f"prism-vault-relay@{name}.{kind}"


def missing(path: str) -> str:
    """Return what is told where there is no such socket."""
    return f"no relay listens at {path}: systemctl enable --now {unit_of(path.rpartition('/')[2])}"


def lacking(directory: str, urls: Iterable[str]) -> Iterator[str]:
    """Iterate over what is told of the servers that no socket in ``directory`` leads to; of none where that is empty."""
    for path in dict.fromkeys(f"{directory}/{name_of(url)}" for url in urls) if directory else ():
        try:
            there = stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            there = False
        if not there:
            yield missing(path)
