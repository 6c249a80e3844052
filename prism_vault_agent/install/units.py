"""What ships for systemd, and where it is put: each file of the package's ``systemd`` directory by its name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import prism_vault_agent
from prism_vault_agent.errors import CannotCreate, ConfigError
from prism_vault_agent.policy.names import shown

if TYPE_CHECKING:
    from collections.abc import Collection

Part = Literal["agent", "central"]
PARTS: Final[tuple[Part, ...]] = ("agent", "central")

# As the files have it.
LAUNCHER: Final = "/opt/prism-vault/bin/prism-vault"
# Where an administrator puts files of these kinds (systemd.unit(5), sysusers.d(5), tmpfiles.d(5)).
_PLACES: Final = {
    ".service": "/etc/systemd/system/{stem}{kind}",
    ".socket": "/etc/systemd/system/{stem}{kind}",
    ".mount": "/etc/systemd/system/{stem}{kind}",
    ".sysusers": "/etc/sysusers.d/{stem}.conf",
    ".tmpfiles": "/etc/tmpfiles.d/{stem}.conf",
}
NETWORK: Final = "prism-vault-agent.service.d/network.conf"
_PLAIN: Final = re.compile(r"/[A-Za-z0-9/._+@-]+")
# What the units have hidden from them.
_HIDDEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - refused, not used


@dataclass(frozen=True, slots=True)
class Shipped:
    """A file that ships: its kind (with a dot), and what is put where."""

    kind: str
    path: str
    content: bytes


def shipped(parts: Collection[Part], launcher: str) -> list[Shipped]:
    """Return what is put in place for ``parts``, started by ``launcher``. Raises ``CannotCreate`` where the package lacks it."""
    found = []
    for file in sorted(_directory().iterdir()):
        part = part_of(file.name)
        if file.suffix in _PLACES and part in parts:
            path = _PLACES[file.suffix].format(stem=file.stem, kind=file.suffix)
            content = file.read_bytes().replace(LAUNCHER.encode(), launcher.encode())
            found.append(Shipped(file.suffix, path, content))
    return found


def network() -> Shipped:
    """Return the drop-in that gives the agent the host's network. Raises like :func:`shipped`."""
    return Shipped(".conf", f"/etc/systemd/system/{NETWORK}", (_directory() / NETWORK).read_bytes())


def part_of(path: str) -> Part:
    """Return which part of the product a file is for."""
    return "central" if os.path.basename(path).startswith("prism-vault-central") else "agent"


def check_launcher(path: str, root: str) -> str:
    """Return the path of the command that units start.

    Raises ``ConfigError`` where they could not, or where somebody but root could replace it.
    """
    if not _PLAIN.fullmatch(path) or os.path.normpath(path) != path:
        raise ConfigError(f"the launcher {shown(path)} cannot stand in a unit", mend="install prism-vault in /opt/prism-vault")
    if path.startswith(_HIDDEN):
        raise ConfigError(f"the launcher {path} is where units see nothing", mend="install prism-vault in /opt/prism-vault")
    there = root.rstrip("/") + path
    if not os.access(there, os.X_OK):
        raise ConfigError(f"there is no launcher {there}", mend="install prism-vault there, or name it with --launcher")
    while there not in ("/", ""):
        found = os.stat(there)
        if found.st_uid != 0 or (found.st_mode & 0o022 and not found.st_mode & 0o1000):
            raise ConfigError(f"{there} could be changed by another user than root", mend="chown root and chmod go-w it")
        there = os.path.dirname(there)
    return path


def users(content: bytes) -> list[str]:
    """Return the users and groups that a file for systemd-sysusers(8) makes."""
    return [line.split()[1] for line in content.decode().splitlines() if line.startswith(("u ", "g "))]


def directories(content: bytes) -> list[str]:
    """Return the directories that a file for systemd-tmpfiles(8) makes."""
    return [line.split()[1] for line in content.decode().splitlines() if line.startswith("d ")]


def _directory() -> Path:
    package = Path(prism_vault_agent.__file__).parent
    for place in (package / "systemd", package.parent / "systemd"):  # installed; in a checkout
        if place.is_dir():
            return place
    raise CannotCreate("this package has no units in it", mend="install prism-vault-agent again, as a wheel")
