"""A Docker engine of the tests' own: its socket, images, containers and networks are nobody else's, and end with it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from tests.support.processes import start_tied
from tests.support.roots import HERE, cache, root
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
BASE = "prism-vault-tests/debian"
COMPOSE = str(Path(sys.executable).with_name("docker-compose"))


class Engine:
    """Starts dockerd(8) without touching the host's firewall; :data:`BASE` is an image of :func:`tests.support.roots.root`.

    ``state`` is the directory of everything that it keeps. Where it is ``remapped``, its containers have user namespaces, in
    which root is this user of the host, and so on.
    """

    def __init__(self, directory: Path, remapped: int = 0) -> None:
        self.log = directory / "dockerd.log"
        self.remapped = remapped
        self._directory = directory
        self.state = Path(tempfile.mkdtemp(prefix="docker-", dir=cache()))
        self._run = Path(tempfile.mkdtemp(prefix="pv-", dir="/run"))  # paths of sockets are short
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        options = [f"--host=unix://{self._run}/docker.sock", f"--pidfile={self._run}/pid", f"--exec-root={self._run}/exec"]
        options += [f"--data-root={self.state}", "--iptables=false", "--ip6tables=false", "--bridge=none"]
        command = [*self._namespace(), "/usr/bin/env", f"PATH={PATH}", "dockerd", *options]
        if self.remapped:
            command.append("--userns-remap=nobody:nogroup")
        self._process = start_tied(command, directory=self._directory, log=self.log)
        try:
            wait_until(self._answers, 60)
            with subprocess.Popen(["tar", "-C", str(root()), "-c", "."], stdout=subprocess.PIPE) as packing:
                self._do(["docker", "import", "-", BASE], stdin=packing.stdout)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``docker``."""
        return self._do(["docker", *words], check=check)

    def compose(
        self, file: Path, *words: str, check: bool = True, stdin: IO[str] | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Compose on a file."""
        return self._do([COMPOSE, "--file", str(file), *words], check=check, stdin=stdin, **environment)

    def inspect(self, what: str) -> dict[str, Any]:
        """Return what the engine says of a container or image."""
        (found,) = json.loads(self.docker("inspect", what).stdout)
        return dict(found)

    def left(self) -> dict[str, list[str]]:
        """Return the names of all containers, volumes and networks; every engine has the networks ``host`` and ``none``."""
        lists = {
            "containers": ("ps", "--all", "--format={{.Names}}"),
            "volumes": ("volume", "ls", "--format={{.Name}}"),
            "networks": ("network", "ls", "--filter=type=custom", "--format={{.Name}}"),
        }
        return {name: self.docker(*words).stdout.split() for name, words in lists.items()}

    def _do(
        self, command: Sequence[str], *, check: bool = True, stdin: Any = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        settings = {"PATH": PATH, "HOME": str(self._directory), "DOCKER_HOST": f"unix://{self._run}/docker.sock", **environment}
        done = subprocess.run(command, env=settings, stdin=stdin, capture_output=True, text=True, check=False, timeout=400)
        assert not check or done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
        return done

    def _namespace(self) -> list[str]:
        """Return what goes before it, so that it reads the numbers of remapped users in a file that it alone sees in /etc."""
        if not self.remapped:
            return []
        file = self._run / "ids"
        file.write_text(f"nobody:{self.remapped}:65536\n")
        script = f'for each in uid gid; do mount --bind {file} /etc/sub$each || exit; done; exec "$@"'
        return ["/usr/bin/unshare", "--mount", "--propagation=slave", "/bin/sh", "-c", script, "sh"]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        return self.docker("version", check=False).returncode == 0

    def _end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None
        # It leaves the host's network mounted where a container had that.
        with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
            left = [line.split()[4] for line in mounts if line.split()[4].startswith((f"{self.state}/", f"{self._run}/"))]
        for mount in reversed(left):
            subprocess.run(["umount", mount], check=True)
        shutil.rmtree(self.state)
        shutil.rmtree(self._run)
        if self.remapped:
            shutil.rmtree(f"{self._run}.{self.remapped}.{self.remapped}")  # what the remapped root may enter


def wheels(requirements: Path) -> Path:
    """Return a directory of the wheels that a locked file names, had once by pip as this machine has it set up."""
    finished = cache() / f"wheels-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]}"
    if not finished.exists():
        getting = Path(tempfile.mkdtemp(prefix="wheels-", dir=cache()))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary=:all:"]
        subprocess.run([*command, "--requirement", str(requirements), "--dest", str(getting)], check=True, cwd=HERE)
        getting.chmod(0o755)
        getting.rename(finished)
    return finished


def context(directory: Path, *requirements: Path) -> Path:
    """Return a copy of what an image is made of, with the wheels in it, so that it is built without a network."""
    for each in ("compose", "launcher", "prism_vault_agent"):
        shutil.copytree(HERE / each, directory / each, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "requirements").mkdir()
    (directory / "compose" / "wheels").mkdir()
    shutil.copy(HERE / ".dockerignore", directory)
    for file in requirements:
        shutil.copy(file, directory / "requirements")
        for wheel in wheels(file).iterdir():
            place = directory / "compose" / "wheels" / wheel.name
            if not place.exists():
                os.link(wheel, place)
    return directory
