"""An example of Compose as a user runs it, on an engine of the tests' own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from typing import IO, TYPE_CHECKING, Any

from tests.support.engine import BASE, Engine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.leaks import Canary

IMAGE = "prism-vault-agent"
AGENT_USER = 10311
# Files that are not whole by themselves: what each goes beside.
BESIDE = {"compose/rotation/compose.yaml": ["compose/stack/compose.yaml"]}


class Example:
    """The example ``compose/NAME`` in a copy of the sources that its images are made of; ``over`` is what differs from it.

    ``beside`` are the names of examples that go with it; ``patience`` is for how many seconds their programs may take to stop.
    """

    def __init__(self, engine: Engine, sources: Path, name: str) -> None:
        self.engine = engine
        self.name = name
        self.directory = sources / "compose" / name
        self.over: dict[str, Any] = {}
        self.environment: dict[str, str] = {}
        self.beside: tuple[str, ...] = ()
        self.patience = 20

    def put(self, name: str, content: str, *, owner: int = AGENT_USER, mode: int = 0o400) -> None:
        """Write a file of the example."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(content)
        path.chmod(mode)
        os.chown(path, owner, owner)

    def compose(self, *words: str, check: bool = True, stdin: IO[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run Compose on it."""
        over = self.directory / "test.json"
        over.write_text(json.dumps(self.over))
        files = (*(str(self.directory.parent / each / "compose.yaml") for each in self.beside), str(over))
        options = ("--project-name", self.name, *(word for each in files for word in ("--file", each)))
        file = self.directory / "compose.yaml"
        environment = {"BASE": BASE, "PIP_NO_INDEX": "1", "APP": BASE, **self.environment}
        return self.engine.compose(file, *options, *words, check=check, stdin=stdin, **environment)

    def up(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Bring it up from images that are there, and wait until it is as healthy as it gets."""
        return self.compose("up", "--detach", "--no-build", "--wait", *words, check=check)

    def logs(self, service: str) -> str:
        """Return what a service has printed."""
        return self.compose("logs", "--no-color", "--no-log-prefix", service).stdout

    def printed(self, canary: Canary) -> bool:
        """Tell whether the last thing that its program printed is the digest of a canary."""
        return self.logs("app").splitlines()[-1:] == [f"{hashlib.sha256(canary.value.encode()).hexdigest()}  -"]

    def container(self, service: str) -> dict[str, Any]:
        """Return what the engine says of the container of a service."""
        return self.engine.inspect(f"{self.name}-{service}-1")

    def down(self) -> None:
        """Take it down with its volumes."""
        self.compose("down", "--volumes", "--timeout", str(self.patience))


def held(engine: Engine, canary: Canary) -> list[str]:
    """Return the files of the engine's (images, containers, logs, volumes with what is mounted there) that hold a canary."""
    patterns = b"\n".join({form for form in canary.forms().values() if b"\n" not in form})
    command = ["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings", "--file=-", str(engine.state)]
    done = subprocess.run(command, input=patterns, capture_output=True, check=False)
    return done.stdout.decode().splitlines()
