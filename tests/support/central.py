"""A real central, as a process of its own, on a free port, with its database in a directory of the test."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx2

from prism_vault_agent.central.signing import write_key
from prism_vault_agent.proof.keys import SigningKey
from tests.support.processes import TIED_TO_PARENT, stop_running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.postgres import PostgresServer

ALLOW_ALL: list[dict[str, Any]] = [
    {"project": "*", "environment": "*", "scopes": ["*"], "hosts": ["*"], "kinds": ["*"], "purposes": ["*"]}
]

# Hosts of agents beside the first one: a name is one agent's.
SPARE = [f"host-{number:03}" for number in range(2, 400)]


class CentralProcess:
    """Starts, stops, kills and restarts central; a restart keeps the port and the database.

    ``agents`` maps a host name to its projects (``server1`` and many more to all of them): each gets a service token, found in
    ``agent_tokens``. ``subjects`` are
    ``[[agents]]`` entries for identity tokens and need ``issuer`` (url, audience). ``policies`` allow everything unless given.
    The log is in a file, or in the database of ``server``. ``before`` is a command, by its
    absolute path, that becomes central.
    """

    def __init__(
        self,
        directory: Path,
        *,
        agents: dict[str, list[str]] | None = None,
        operators: dict[str, list[str]] | None = None,
        policies: list[dict[str, Any]] | None = None,
        issuer: dict[str, str] | None = None,
        subjects: list[dict[str, Any]] | None = None,
        reservation_ttl: str = "60s",
        server: PostgresServer | None = None,
        more: dict[str, Any] | None = None,
        before: list[str] | None = None,
    ) -> None:
        self.directory = directory
        self.config_file = directory / "central.toml"
        self.database = directory / "central-db" / "audit.db"
        self.url = ""
        self.log: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.operator_token = secrets.token_urlsafe(32)
        self._agents = agents or {name: ["*"] for name in ("server1", *SPARE)}
        self._unused = list(self._agents)
        self.agent_tokens = {host: secrets.token_urlsafe(32) for host in self._agents}
        self.operator_tokens = {name: secrets.token_urlsafe(32) for name in operators or {}}
        self._operators = operators or {}
        self._settings: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "database": server.url() if server else str(self.database),
            "reservation_ttl": reservation_ttl,
            "policies": ALLOW_ALL if policies is None else policies,
            "agents": subjects or [],
            **({"issuer": issuer} if issuer else {}),
            **({"database_owner": server.owner_url, "log": {"key_file": self._key()}} if server else {}),
            **(more or {}),
        }
        self._before = before or []
        self._reading: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def replica(self, directory: Path) -> Self:
        """Return another central, not started, of the same configuration; the database must be a server's."""
        other = copy.copy(self)
        other.directory, other.config_file = directory, directory / "central.toml"
        other.log, other.process, other._reading = [], None, None
        other._settings = {**self._settings, "listen": "127.0.0.1:0"}
        return other

    def start(self, under: Sequence[str] = ()) -> Self:
        """Start central and return when it answers; ``under`` are words before its command."""
        self.write_config()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", TIED_TO_PARENT, str(os.getpid())),
                *(
                    *under,
                    sys.executable,
                    "-m",
                    "prism_vault_agent.central.serve",
                    "--migrate",
                    "--config",
                    str(self.config_file),
                ),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        self._reading = threading.Thread(target=self._read_log, args=(self.process,), daemon=True)
        self._reading.start()
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            self._end(signal.SIGTERM)
            raise AssertionError(f"central did not start: {line}{''.join(self.log)}")
        self.url = line.removeprefix("listening on ").strip()
        self._settings["listen"] = self.url.partition("://")[2]
        return self

    def stop(self) -> int:
        """End central as a service manager does, and return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End central at once, as a power cut of the process."""
        return self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """End central and start it again on the same port and database."""
        self.stop()
        return self.start()

    def name(self) -> str:
        """Return a host's name that no agent was given so far, the first one first; the last one again where all were."""
        return self._unused.pop(0) if len(self._unused) > 1 else self._unused[0]

    def pause(self) -> None:
        """Make central hang: connections are accepted by the kernel, nothing answers."""
        assert self.process is not None
        stop_running(self.process.pid)

    def resume(self) -> None:
        """Let a paused central go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def setting(self, name: str) -> Any:
        """Return a top-level setting."""
        return self._settings[name]

    @property
    def key_file(self) -> Path:
        """Where the key is with which it signs."""
        return Path(self._settings.get("log", {}).get("key_file") or self.database.with_name("signing.key"))

    def set(self, **settings: Any) -> None:
        """Change top-level settings; they hold from the next start."""
        self._settings |= settings

    def client(self, token: str | None = None) -> httpx2.Client:
        """Return an HTTP client with this bearer token, by default the operator's."""
        credential = self.operator_token if token is None else token
        headers = {"Authorization": f"Bearer {credential}"}
        # Without TLS there is nothing to verify, and loading the authorities costs more than the requests.
        verify = self.url.startswith("https:")
        return httpx2.Client(base_url=self.url, headers=headers, verify=verify, trust_env=False, timeout=15)

    def events(self, **filters: Any) -> list[dict[str, Any]]:
        """Return all events that match, each with its ``fields`` parsed from its body."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        with self.client() as client:
            while after is not None:
                answer = client.get("/v1/audit/events", params={**filters, "after": after, "limit": 1000})
                answer.raise_for_status()
                page = answer.json()
                found += [{**event, "fields": json.loads(event["body"])} for event in page["events"]]
                after = page["next"]
        return found

    def write_config(self) -> None:
        """Write the configuration file, readable by its owner only."""
        tokens = [_token("test-operator", self.operator_token, "operator", "", ["*"])]
        tokens += [_token(name, self.operator_tokens[name], "operator", "", of) for name, of in self._operators.items()]
        tokens += [_token(f"agent-{host}", self.agent_tokens[host], "agent", host, of) for host, of in self._agents.items()]
        settings = {**self._settings, "tokens": tokens}
        self.config_file.touch(0o600)
        self.config_file.chmod(0o600)
        self.config_file.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in settings.items()))

    def _key(self) -> str:
        path = self.directory / "signing.key"
        write_key(path, SigningKey.generate("test/central"))
        return str(path)

    def _end(self, number: int) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        status = self.process.wait(40)
        if self._reading is not None:
            self._reading.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        self.process = None
        return status

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.log.extend(iter(process.stderr.readline, ""))


def _token(name: str, text: str, role: str, host: str, projects: list[str]) -> dict[str, Any]:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return {"name": name, "sha256": sha256, "role": role, "host": host, "projects": projects}


def _toml(value: Any) -> str:
    """Return a value as TOML writes it in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
