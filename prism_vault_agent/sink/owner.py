"""Files of other users: what a sink that is not root has done for it, and the steps that need it.

A file that belongs to somebody else cannot be given a further name by us (``protected_hardlinks``, proc_sys_fs(5)), nor read or
emptied; so it is named, unseen, before it is given away, and taken back before it is emptied.
"""

from __future__ import annotations

import os
import stat
from typing import Protocol

from prism_vault_agent.sink import linux


class Owners(Protocol):
    """Who changes owners for us. Each raises ``CannotCreate`` where it is not done."""

    def give(self, descriptor: int, uid: int, gid: int) -> None:
        """Give a file of ours, which has its mode, to these."""
        ...

    def take(self, descriptor: int) -> None:
        """Make a rendered file ours again; an O_PATH descriptor will do."""
        ...

    def read(self, descriptor: int) -> int:
        """Return a descriptor that reads a rendered file; an O_PATH descriptor will do."""
        ...


def open_rendered(place: int, path: str, owners: Owners | None) -> int:
    """Open a visible file to be read, whoever owns it."""
    try:
        return linux.open_below(place, path, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        if owners is None:
            raise
    known = linux.open_below(place, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return owners.read(known)
    finally:
        os.close(known)


def ours(found: os.stat_result) -> bool:
    """Tell whether we may do with a file what its owner may."""
    return os.geteuid() in (0, found.st_uid)


def empty(place: int, path: str, owners: Owners | None, *, alone: bool) -> None:
    """Truncate a regular file, or only one that has no other name (``alone``), taking it back before where it was given away."""
    found = os.stat(path, dir_fd=place, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode) or (alone and found.st_nlink > 1):
        return
    if owners is not None and not ours(found):
        known = linux.open_below(place, path, os.O_PATH | os.O_NOFOLLOW)
        try:
            owners.take(known)
        finally:
            os.close(known)
    os.chmod(path, 0o600, dir_fd=place)  # who owns a file may not write it before its mode says so
    # O_NONBLOCK: its owner may have a lease on it, which would hold us up until that is broken (fcntl(2)).
    descriptor = linux.open_below(place, path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
