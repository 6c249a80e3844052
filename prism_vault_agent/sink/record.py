"""What stands in ``.generation`` beside the files of a generation: what they are, so that the next agent can look after them.

JSON without values: ``told``, what the agent says of the render (see ``agent/files/files.py``); ``files``, each with what
fstat(2) said of it when it was written (see ``Written``). No hash of a content: one of a short secret is as good as the secret.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass
from typing import Any, Final

from prism_vault_agent.sink import linux

NAME: Final = ".generation"
LARGEST: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it was written; ``path`` is below the scope's directory."""

    path: str
    inode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, path: str, found: os.stat_result) -> Written:
        """Return what fstat(2) says of the file at ``path``."""
        mode = stat.S_IMODE(found.st_mode)
        return cls(path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_uid, found.st_gid, mode)


def encode(told: dict[str, Any], files: list[Written]) -> bytes:
    """Return the bytes of a record."""
    return json.dumps({"told": told, "files": [asdict(file) for file in files]}).encode()


def read(place: int, scope: str) -> tuple[dict[str, Any], list[Written]] | None:
    """Return the record of the visible generation of ``scope``; None where there is none, or none of ours that is whole."""
    try:
        descriptor = linux.open_below(place, f"{scope}/{NAME}", os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o600:
                return None
            plain = json.loads(file.read(LARGEST))
        return dict(plain["told"]), [Written(**entry) for entry in plain["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def drift(place: int, scope: str, files: list[Written]) -> list[str]:
    """Return what somebody else did to the files of a generation: a line for each that is gone or changed."""
    found = []
    for file in files:
        try:
            descriptor = linux.open_below(place, f"{scope}/{file.path}", os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            found.append(f"{file.path} is gone")
            continue
        try:
            now = Written.of(file.path, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        if now.inode != file.inode:
            found.append(f"{file.path} was replaced")
        elif (now.size, now.mtime_ns) != (file.size, file.mtime_ns):
            found.append(f"{file.path} was edited")
        elif now != file:
            found.append(f"{file.path} has another owner or mode")
    return found
