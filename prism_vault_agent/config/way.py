"""The way to a file: nobody but root and us may be able to put another file in its place.

As OpenSSH does for the files that it trusts, every directory up to ``/`` is looked at, and so is every symbolic link on the way
(see path_resolution(7)): who may write a directory may replace what is in it.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_LINKS: Final = 40  # as the kernel follows, see path_resolution(7)


def check(path: str, known: set[str]) -> None:
    """Refuse a directory or link on the way to ``path``, which is absolute, that somebody else owns or may change.

    A directory that all may write is no danger where its sticky bit is set (``/tmp``). What ``path`` leads to in the end is
    looked at only where it is a directory. ``known`` holds what has been found good, and takes more. Raises ``ConfigError``
    naming the first place that is not, and ``OSError`` where the way leads nowhere.
    """
    for place, found in steps(path):
        if place in known or not (stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            continue
        owned(place, found)
        if stat.S_ISDIR(found.st_mode) and not found.st_mode & stat.S_ISVTX:
            unwritable(place, found)
        known.add(place)


def owned(path: str, found: os.stat_result) -> None:
    """Raise ``ConfigError`` where something belongs to somebody other than root and us."""
    if found.st_uid not in (0, os.geteuid()):
        told = f"{path}: belongs to uid {found.st_uid}, not to root or to you"
        raise ConfigError(told, mend=f"chown {os.geteuid()} {path}, or keep the configuration elsewhere")


def unwritable(path: str, found: os.stat_result) -> None:
    """Raise ``ConfigError`` where group or world may write something."""
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigError(f"{path}: may be written by others (mode {mode:04o})", mend=f"chmod go-w {path}")


def steps(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything that the kernel passes from ``/`` to ``path``, with what lstat(2) says of it."""
    at, links = "/", 0
    left = path.split("/")[::-1]
    yield at, os.lstat(at)
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            at = os.path.dirname(at)  # no link is in it any more
            continue
        here = os.path.join(at, name)
        found = os.lstat(here)
        yield here, found
        if not stat.S_ISLNK(found.st_mode):
            at = here
            continue
        links += 1
        if links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(here)
        at = "/" if target.startswith("/") else at
        left += target.split("/")[::-1]
