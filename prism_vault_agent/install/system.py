"""The system that units are put into: this one, or an image below a directory."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import CannotCreate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prism_vault_agent.install.units import Shipped

SECONDS: Final = 60
UNITS: Final = "/etc/systemd/system/"


@dataclass(frozen=True, slots=True)
class System:
    """``root`` is where it is, without a slash at its end; empty for this one."""

    root: str = ""

    def content(self, path: str) -> bytes | None:
        """Return what is at a path; None where nothing is. Raises ``CannotCreate`` where that cannot be told."""
        try:
            with open(self.root + path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CannotCreate(f"cannot read {self.root}{path}: {error.strerror}", mend="mend that") from None

    def missing(self, directory: str) -> list[str]:
        """Return which of a directory and those above it are not there."""
        found = []
        while directory != "/" and not os.path.exists(self.root + directory):
            found.append(directory)
            directory = os.path.dirname(directory)
        return found

    def commands(self, files: Iterable[Shipped]) -> Iterator[tuple[str, ...]]:
        """Iterate over the commands that make users and directories of files and have systemd know them, in that order."""
        at = [f"--root={self.root}"] if self.root else []
        named = {
            kind: [os.path.basename(file.path) for file in files if file.kind == kind] for kind in (".sysusers", ".tmpfiles")
        }
        if named[".sysusers"]:
            yield "systemd-sysusers", *at, *named[".sysusers"]
        if named[".tmpfiles"]:
            yield "systemd-tmpfiles", *at, "--create", *named[".tmpfiles"]
        if not self.root:
            yield "systemctl", "daemon-reload"

    def reload(self) -> None:
        """Have systemd know what is there now."""
        if not self.root:
            self._systemctl("daemon-reload")

    def in_use(self, paths: Iterable[str]) -> list[str]:
        """Return the units of these files, and those made of templates, that are active or enabled."""
        found = [path.removeprefix(UNITS).replace("@.", "@*.") for path in paths if path.startswith(UNITS)]
        names = [name for name in found if "/" not in name]  # a drop-in is no unit
        if not names:
            return []
        plain = ("--plain", "--no-legend", "--no-pager", "--full")
        # Its exit status is 1 where it finds none.
        enabled = self._systemctl("list-unit-files", *plain, "--state=enabled,enabled-runtime", *names, good=(0, 1))
        states = "--state=active,activating,reloading,deactivating"
        active = "" if self.root else self._systemctl("list-units", *plain, states, *names)
        return list(dict.fromkeys(line.split()[0] for line in (active + enabled).splitlines() if line.strip()))

    def enabled(self, unit: str) -> bool:
        """Tell whether a unit is started at boot."""
        # Its exit status is that of what it finds.
        return self._systemctl("is-enabled", unit, good=(0, 1, 4)).strip() == "enabled"

    def active(self, unit: str) -> bool:
        """Tell whether a unit runs; none does in an image."""
        return not self.root and self._systemctl("is-active", unit, good=(0, 3, 4)).strip() == "active"

    def enable(self, socket: str) -> None:
        """Have a socket listen now and at each boot."""
        self._systemctl("enable", *([] if self.root else ["--now"]), socket)

    def disable(self, socket: str, service: str) -> None:
        """Have a socket, and the service that it starts, end now, and not start at a boot."""
        self._systemctl("disable", *([] if self.root else ["--now"]), socket)
        if not self.root:
            self._systemctl("stop", service)

    def _systemctl(self, *words: str, good: tuple[int, ...] = (0,)) -> str:
        return self.run("systemctl", *([f"--root={self.root}"] if self.root else []), *words, good=good)

    def run(self, *words: str, good: tuple[int, ...] = (0,)) -> str:
        """Return what a command prints. Raises ``CannotCreate`` where it is not there or fails."""
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL, errors="replace"
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotCreate(f"{words[0]} does not run ({type(error).__name__})", mend="is this a system of systemd?") from None
        if done.returncode not in good:
            why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise CannotCreate(f"{' '.join(words)}: {why}", mend="mend that, and try again; nothing was changed")
        return done.stdout
