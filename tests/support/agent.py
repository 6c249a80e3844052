"""A real agent, as a process of its own, between a real OpenBao and a real central; and the launcher that users call."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prism_vault_agent.central.signing import read_key
from tests.support.as_user import prefix
from tests.support.child import Child
from tests.support.processes import start_tied
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.central import CentralProcess
    from tests.support.openbao import OpenBao

LAUNCHER = str(Path(sys.executable).with_name("prism-vault"))
POLICY = """
path "secret/*" { capabilities = ["read", "list"] }
path "kv1/*" { capabilities = ["read", "list"] }
path "identity/oidc/token/*" { capabilities = ["read"] }
"""
HOST = "server1"
# A reading that began, and what came of it.
RELOADED = re.compile(r"config\.reading.*config\.(unchanged|applied|refused)", re.DOTALL)


class AgentProcess:
    """Starts, stops and kills an agent; ``exec`` runs a command through it as a user would."""

    def __init__(
        self,
        directory: Path,
        openbao: OpenBao,
        central: CentralProcess,
        *,
        vault_address: str = "",
        central_url: str = "",
        agent: str = "",
        vault: str = "",
        auth: str = "",
        central_lines: str = "",
        log_key: bool = True,
        host: str = "",
        role: str = "server1",
        token: bool = True,
        before: Sequence[str] = (),
        user: int | None = None,
        words: Sequence[str] = ("agent",),
    ) -> None:
        """The host is the next one of central's, unless it is named.

        The ``*_address`` and ``*_url`` go before the servers' own, for a fault proxy; the others are TOML lines.

        ``log_key`` tells whether central must prove its log, where it has a key; ``token`` whether the agent has one for it.
        ``before`` are words that go before the agent's command: a program that changes something and becomes it; ``words`` are
        the command's own. ``user`` has it run, with its files and its scopes, as another user than us.
        """
        self.user = os.geteuid() if user is None else user
        self.as_user = [] if user is None else prefix(user, user)
        self.before = [*self.as_user, *before]
        self.words = list(words)
        self.directory = directory
        self.openbao = openbao
        self.central = central
        self.socket = str(directory / "run" / "agent.sock")
        self.config = directory / "agent.toml"
        self.log_file = directory / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        if not auth:
            openbao.policy("prism-vault", POLICY)
            role_id, secret_id = (self._own(path) for path in openbao.approle(role, ["prism-vault"]))
            auth = f'method = "approle"\nrole_id_file = "{role_id}"\nsecret_id_file = "{secret_id}"\n'
        self.host = host = host or central.name()
        token_file = directory / "central.token"
        self._private(token_file, central.agent_tokens[host])
        (directory / "scopes.d").mkdir(mode=0o700, exist_ok=True)
        for own in (directory, directory / "scopes.d"):
            os.chown(own, self.user, -1)
        self.main = (
            f'[agent]\nhost = "{host}"\nsocket = "{self.socket}"\nstate = "{directory / "state"}"\nlog_level = "debug"\n{agent}\n'
            f'[vault]\naddress = "{vault_address or openbao.address}"\n{vault}\n[vault.auth]\n{auth}\n'
            f'[central]\nurl = "{central_url or central.url}"\n{central_lines}\n'
        )
        if log_key and central.key_file.exists():
            self.main += f'log_key = "{read_key(central.key_file).verifying_key}"\n'
        if token and "identity_role" not in central_lines:
            self.main += f'token_file = "{token_file}"\n'
        self._private(self.config, self.main)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def scope(self, name: str, env: dict[str, str] | None = None, **more: Any) -> Self:
        """Write a scope of this agent's user (unless ``callers`` says otherwise) into scopes.d."""
        table = {
            "project": "prism",
            "environment": "test",
            "purposes": ["test"],
            "callers": [{"kind": "operator", "uid": self.user}],
            **({"env": env} if env else {}),
            **more,
        }
        lines = [f"[scopes.{name}]"] + [f"{key} = {_toml(value)}" for key, value in table.items()]
        self._private(self.directory / "scopes.d" / f"{name}.toml", "\n".join(lines) + "\n")
        return self

    def start(self, *, ready: bool = True) -> Self:
        """Start the agent and, unless told otherwise, wait until it says that an exec can work."""
        arguments = [*self.before, LAUNCHER, *self.words, "--config", str(self.config)]
        self.process = start_tied(arguments, directory=self.directory, log=self.log_file)
        try:
            wait_until(lambda: self.process is None or self.process.poll() is not None or self._answers(ready=ready))
        except AssertionError:
            self.stop()
            raise AssertionError(self.log) from None
        assert self.process.poll() is None, self.log
        return self

    def stop(self) -> int:
        """End the agent as a service manager does, and return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End the agent at once."""
        return self._end(signal.SIGKILL)

    def hang_up(self) -> None:
        """Have the agent reload, and return once it has read what is there now, and applied or refused it."""
        assert self.process is not None
        before = len(self.log)
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: RELOADED.search(self.log[before:]), 60)

    @property
    def log(self) -> str:
        """What the agent has logged, in whole lines: the last one may still be being written."""
        whole, newline, _ = self.log_file.read_text().rpartition("\n")
        return whole + newline

    def status(self) -> dict[str, Any]:
        """Return the answer to GET /v1/status."""
        return dict(json.loads(self.http("GET", "/v1/status")[1]))

    def http(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """Send one HTTP request to the socket; return the status and the body."""
        given = {"Host": "prism-vault", "X-Prism-Vault": "1", "Content-Length": str(len(body)), **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        answer = self.raw(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), content

    def raw(self, message: bytes) -> bytes:
        """Send bytes to the socket and return all that comes back."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(15)
            connection.connect(self.socket)
            connection.sendall(message)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def exec(self, *words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``prism-vault exec WORDS`` as the agent's user and return how it ended; ``env`` is added to a small environment."""
        return subprocess.run(
            [*self.as_user, LAUNCHER, "exec", *words],
            env=self.environment(env),
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
            **options,
        )

    def spawn(self, *words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start ``prism-vault exec WORDS`` and return the process, which becomes the command."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return Child([*self.as_user, LAUNCHER, "exec", *words], env=self.environment(env), text=True, **pipes)

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a user of this agent."""
        return {"PATH": "/usr/bin:/bin", "HOME": "/", "PRISM_VAULT_SOCKET": self.socket, **(more or {})}

    def _own(self, path: Path) -> Path:
        """Return a file's path where the agent's user may read it: a copy of its own, where that is another user than us."""
        if not self.as_user:
            return path
        self._private(own := self.directory / path.name, path.read_text())
        return own

    def _private(self, path: Path, text: str) -> None:
        """Write a file that nobody but the agent's user may read; whole, since an agent may look at any moment."""
        draft = path.with_name(f".{path.name}.new")
        draft.touch(mode=0o600)
        draft.chmod(0o600)
        draft.write_text(text)
        os.chown(draft, self.user, -1)
        draft.replace(path)

    def _answers(self, *, ready: bool) -> bool:
        try:
            return bool(self.status()["ready"]) or not ready
        except OSError:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send the agent a signal; see :meth:`ended` for what comes of it."""
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the agent's end, and return its exit status."""
        assert self.process is not None
        status = self.process.wait(60)
        self.process = None
        return status

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.send(number)
        return self.ended()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
