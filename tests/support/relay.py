"""The relays that ship, without their units: systemd's own proxy behind a socket of a server's name."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prism_vault_agent.relay import socket_of
from tests.support.processes import start_tied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROXY = "/lib/systemd/systemd-socket-proxyd"


@contextlib.contextmanager
def relay(directory: Path, url: str, to: str = "") -> Iterator[Path]:
    """Run the relay for the server at ``url``, which leads there or ``to`` another one (``host:port``)."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    path = directory / socket_of(".", parts.hostname, parts.port)
    path.unlink(missing_ok=True)
    target = to or f"{parts.hostname}:{parts.port}"
    command = ["/usr/bin/systemd-socket-activate", f"--listen={path}", PROXY, target]
    process = start_tied(command, directory=directory, log=directory / "relay.log")
    try:
        wait_until(path.is_socket)
        yield path
    finally:
        process.kill()
        process.wait()
        path.unlink(missing_ok=True)
