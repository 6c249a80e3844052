"""What systemd is told (sd_notify(3)): one datagram to NOTIFY_SOCKET, or nothing where there is none."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping


class Notifier:
    """Speaks to the service manager. The variables are taken out of the environment, so that no child inherits them."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take NOTIFY_SOCKET and WATCHDOG_USEC from ``environ``."""
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds = environ.pop("WATCHDOG_USEC", "")
        meant_for_us = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(microseconds) / 1_000_000 if microseconds.isdigit() and meant_for_us else None

    def tell(self, **fields: str) -> None:
        """Send fields such as ``READY="1"``. A manager that does not listen is not waited for."""
        self._send(fields, [])

    def store(self, kept: socket.socket, name: str) -> None:
        """Have the manager keep a socket open, and pass it to the next agent under this name, until its peer has closed it.

        See FDSTORE= in sd_notify(3), and FileDescriptorStoreMax= of the unit.
        """
        self._send({"FDSTORE": "1", "FDNAME": name}, [kept.fileno()])

    def _send(self, fields: Mapping[str, str], descriptors: list[int]) -> None:
        if not self._address:
            return
        message = "\n".join(f"{name}={value}" for name, value in fields.items())
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager,
        ):
            manager.connect(self._address)
            socket.send_fds(manager, [message.encode()], descriptors)
