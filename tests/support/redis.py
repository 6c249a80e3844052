"""A real Redis of the test's own on a free port of loopback, in memory only, and whether it lets somebody in."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Self

from tests.support.processes import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "of-the-test"


class RedisServer:
    """A server whose administrator is ``default``, by password."""

    def __init__(self, directory: Path) -> None:
        binary = shutil.which("valkey-server") or shutil.which("redis-server")
        assert binary, "Redis's or Valkey's server is needed: apt-get install redis-server"
        self.port = free_port()
        options = ["--port", f"{self.port}", "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD]
        self._log = (directory / "redis.log").open("ab")
        words = ["setpriv", "--pdeathsig=KILL", binary, *options, "--dir", f"{directory}"]
        self._process = subprocess.Popen(words, stdout=self._log, stderr=self._log, cwd="/")

    def __enter__(self) -> Self:
        wait_until(lambda: self.logs_in("default", PASSWORD))
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def logs_in(self, user: str, password: str) -> bool:
        """Tell whether the server takes a user's password (AUTH, an inline command of its protocol)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
                connection.sendall(f"AUTH {user} {password}\r\n".encode())
                return connection.recv(100).startswith(b"+OK")
        except ConnectionRefusedError:
            return False
