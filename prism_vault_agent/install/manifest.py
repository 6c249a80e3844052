"""What was put in place, by path and SHA-256: what ``--undo`` takes away, and how a file that somebody changed is known.

It is root's, in a directory of its own: the state of the agent is the agent's, who could otherwise have root remove anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from typing import Final

from prism_vault_agent.errors import CannotCreate

DIRECTORY: Final = "/var/lib/prism-vault-install"
_FILE: Final = f"{DIRECTORY}/systemd.json"


@dataclass(slots=True)
class Manifest:
    """``files``: what we put at each path (SHA-256, hex; two while one replaces the other). ``directories`` that we made.

    ``relays`` are the servers (``HOST:PORT``) whose relays we enabled.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    relays: list[str] = field(default_factory=list)

    def ours(self, path: str, content: bytes) -> bool:
        """Tell whether we put this content at this path."""
        return hashlib.sha256(content).hexdigest() in self.files.get(path, [])

    def add(self, path: str, content: bytes) -> None:
        """Note that this is about to be at this path, beside what we put there before."""
        self.files.setdefault(path, []).append(hashlib.sha256(content).hexdigest())

    def settle(self, path: str, content: bytes) -> None:
        """Note that this is at this path now, and nothing else."""
        self.files[path] = [hashlib.sha256(content).hexdigest()]


def read(root: str) -> Manifest:
    """Return the manifest of the system at ``root``; empty where there is none. Raises ``CannotCreate`` for a damaged one."""
    try:
        with open(root + _FILE, encoding="utf-8") as file:
            plain = json.load(file)
        return Manifest(
            {str(path): [str(each) for each in found] for path, found in plain["files"].items()},
            plain["directories"],
            plain.get("relays", []),
        )
    except FileNotFoundError:
        return Manifest()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CannotCreate(f"{root}{_FILE} cannot be read", mend="restore it, or remove it and the files by hand") from None


def write(root: str, manifest: Manifest) -> None:
    """Keep the manifest durably; an empty one is removed, and its directory. Raises ``OSError``."""
    if not manifest.files and not manifest.directories and not manifest.relays:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(root + _FILE)
        with contextlib.suppress(OSError):
            os.rmdir(root + DIRECTORY)
        return
    os.makedirs(root + DIRECTORY, 0o755, exist_ok=True)
    plain = {"files": manifest.files, "directories": manifest.directories, "relays": manifest.relays}
    put(root + _FILE, (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode())


def put(path: str, content: bytes) -> None:
    """Have ``content`` at ``path``, whole or not at all, for everybody to read. Raises ``OSError``."""
    descriptor, draft = tempfile.mkstemp(prefix=".prism-vault-", dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, 0o644)
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
