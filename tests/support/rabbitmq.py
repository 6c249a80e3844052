"""A real RabbitMQ of the test's own on free ports of loopback, and what its management says of users."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.processes import free_port, start_tied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import subprocess

BROKER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
ADMIN, PASSWORD = "admin", "of-the-test"
CONFIG = """
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {port}
default_user = {admin}
default_pass = {password}
"""


class RabbitMq:
    """A broker with its management, and the daemon that knows the ports of Erlang's nodes (epmd), which it needs.

    ``connection`` is what OpenBao's engine is to be told of it.
    """

    def __init__(self, directory: Path) -> None:
        assert BROKER.exists(), "RabbitMQ is needed: apt-get install rabbitmq-server"
        self._directory = directory
        self.port = free_port()
        config = CONFIG.format(amqp=free_port(), port=self.port, admin=ADMIN, password=PASSWORD)
        self.connection = {"connection_uri": f"http://127.0.0.1:{self.port}", "username": ADMIN, "password": PASSWORD}
        (directory / "rabbitmq.conf").write_text(config)
        (directory / "plugins").write_text("[rabbitmq_management].")
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        epmd, of_node = shutil.which("epmd"), str(free_port())
        assert epmd
        self._start(epmd, "-port", of_node, "-address", "127.0.0.1")
        more = {
            "ERL_EPMD_PORT": of_node,
            "RABBITMQ_CONFIG_FILE": f"{self._directory}/rabbitmq",
            "RABBITMQ_DIST_PORT": f"{free_port()}",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self._directory}/plugins",
            "RABBITMQ_LOG_BASE": f"{self._directory}/logs",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_MNESIA_BASE": f"{self._directory}/mnesia",
            "RABBITMQ_NODENAME": "test@localhost",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false +S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
            "RUNNING_UNDER_SYSTEMD": "1",  # so the script becomes the broker, and is not left above it
        }
        self._start(str(BROKER), **more)
        wait_until(self._answers, 100)
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._processes[::-1]:
            process.kill()
            process.wait()

    def users(self) -> list[str]:
        """Return who the broker knows beside its administrator."""
        _, found = self._get("/api/users", ADMIN, PASSWORD)
        return sorted(each["name"] for each in found if each["name"] != ADMIN)

    def lets_in(self, user: str, password: str) -> bool:
        """Tell whether the broker lets somebody in by password."""
        return self._get("/api/whoami", user, password)[0] == 200

    def _get(self, path: str, user: str, password: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        credential = base64.b64encode(f"{user}:{password}".encode()).decode()
        connection.request("GET", path, headers={"Authorization": f"Basic {credential}"})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        return answer.status, found

    def _answers(self) -> bool:
        assert self._processes[-1].poll() is None, (self._directory / "rabbitmq.log").read_text()[-2000:]
        try:
            return self.lets_in(ADMIN, PASSWORD)
        except OSError:
            return False

    def _start(self, *words: str, **more: str) -> None:
        log = self._directory / "rabbitmq.log"
        self._processes.append(start_tied(words, directory=self._directory, log=log, more=more))
