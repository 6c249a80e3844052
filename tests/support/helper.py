"""A real helper for an agent of the user nobody, with root's configuration and a tmpfs of the agent's; as the agent asks it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from prism_vault_agent.helper import wire
from prism_vault_agent.helper.client import Helper
from prism_vault_agent.helper.wire import Request, Said
from tests.support.agent import LAUNCHER
from tests.support.as_user import NOBODY, in_child
from tests.support.processes import start_tied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

# Users of Debian's own; in the tests they are whom files are given to and whose processes are ended.
DAEMON, WWW_DATA, MAIL = 1, 33, 8
CONFIG = """\
[agent]
files = "{files}"
[vault]
address = "https://vault.lan:8200"
[vault.auth]
method = "approle"
role_id_file = "/etc/prism-vault/role-id"
secret_id_file = "/etc/prism-vault/secret-id"
[central]
url = "https://central.lan"
token_file = "/etc/prism-vault/token"
[scopes.web]
project = "prism"
environment = "lan"
purposes = ["service"]
callers = [{callers}]
[scopes.web.env]
KEY = "vault://secret/web#key"
[[scopes.web.files]]
path = "web.env"
format = "systemd"
owner = "www-data"
mode = "0400"
notify = {{ unit = "prism-vault-nowhere.service", action = "restart" }}
[[scopes.web.files]]
path = "group.env"
format = "systemd"
group = "www-data"
mode = "0440"
"""
CALLERS = '{ kind = "service", user = "www-data" }'


class HelperProcess:
    """Runs ``prism-vault helper`` on a socket of its own; ``files`` is a tmpfs that belongs to nobody."""

    def __init__(self, directory: Path, *, callers: str = CALLERS, words: tuple[str, ...] = (), mounted: bool = True) -> None:
        self.directory = directory
        self.socket = str(directory / "helper.sock")
        self.files = directory / "files"
        self.log = directory / "helper.log"
        self.config = directory / "agent.toml"
        self.config.write_text(CONFIG.format(files=self.files, callers=callers))
        self.config.chmod(0o644)
        self._mounted = mounted
        self._words = words
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._mounted:
            self.files.mkdir()
            options = f"noswap,size=1m,mode=0711,uid={NOBODY},gid={NOBODY}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(self.files)], check=True)
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        while self.files.is_mount():
            subprocess.run(["umount", str(self.files)], check=True)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [LAUNCHER, "helper", "--config", str(self.config), "--socket", self.socket, "--user", "nobody", "--idle", "0"]
        self.process = start_tied([*command, *self._words], directory=self.directory, log=self.log)
        wait_until(self._listens)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.connect(self.socket)
            except OSError:
                return False
            return True

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return what it has logged under a name."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def rendered(self, name: str = "web.env", mode: int = 0o400, uid: int = NOBODY) -> Path:
        """Make a file as the agent has staged it."""
        path = self.files / name
        path.write_text("KEY=canary\n")
        path.chmod(mode)
        os.chown(path, uid, NOBODY)
        return path

    def asked(self, question: Callable[[Helper], Result], uid: int | None = NOBODY) -> Result:
        """Return what a question of the agent's is answered, or raise what it raises; in a process of this user."""

        def ask() -> Result:
            with Helper(self.socket) as helper:
                return question(helper)

        return in_child(ask, uid)

    def raw(self, packet: bytes, descriptors: tuple[int, ...] = (), uid: int | None = NOBODY) -> tuple[Said, str]:
        """Return the answer to a packet as it is."""

        def send() -> tuple[Said, str]:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.settimeout(30)
                connection.connect(self.socket)
                socket.send_fds(connection, [packet], descriptors)
                return wire.decode_answer(wire.receive(connection, 1 + wire.LONGEST_LINE)[0])

        return in_child(send, uid)


def packet(verb: wire.Verb, first: int = 0, second: int = 0) -> bytes:
    """Return the packet of a request."""
    return wire.encode(Request(verb, (first, second)))
