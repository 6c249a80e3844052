"""The way out for an agent that has no network: a Unix socket for each server, whose other end is that server. Pure.

What listens there connects to one server and passes bytes on (systemd-socket-proxyd(8): ``systemd/prism-vault-relay@.socket``).
TLS is between us and the server, as ever.
"""

from __future__ import annotations


def socket_of(directory: str, host: str, port: int) -> str:
    """Return the path of the socket that leads to a server: its address is its name."""
    return f"{directory}/{host}:{port}"


def missing(path: str) -> str:
    """Return what is told where there is no such socket."""
    return f"no relay listens at {path}: enable prism-vault-relay@{path.rpartition('/')[2]}.socket"
