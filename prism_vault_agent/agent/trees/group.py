"""A control group below the one in which a process is: whatever that process starts is in it, whoever its parent is by then.

It is made for the run and named after it, so nobody else is in it and it is never mistaken for another one. Being below the group
of the unit or session, it leaves both to systemd as they were: what is below a unit belongs to it, for its limits, its accounting
and its end.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger()

NAME: Final = "prism-vault-"
_ROUNDS: Final = 100
_PAUSE: Final = 0.01


@dataclass(slots=True)
class Group:
    """The group at ``directory``."""

    directory: str

    @property
    def name(self) -> str:
        """Its own name, which no other group has."""
        return os.path.basename(self.directory)

    @property
    def is_told_by_parents(self) -> bool:
        """Whether only parents tell what is of the tree: False."""
        return False

    def enter(self, pid: int) -> None:
        """Make it and put a process there. Raises ``OSError``, and then nothing has changed.

        Whoever calls this holds a descriptor of the process, and asks it afterwards whether it was that one.
        """
        os.mkdir(self.directory, 0o755)
        try:
            _write(f"{self.directory}/cgroup.procs", str(pid))
        except OSError:
            os.rmdir(self.directory)
            raise

    def leave(self) -> None:
        """Put whoever is there back to where it was, and take the group away; blocks while any of them is about to end."""
        above = os.path.dirname(self.directory)
        for _ in range(_ROUNDS):
            for pid in members(self.directory):
                with contextlib.suppress(OSError):
                    _write(f"{above}/cgroup.procs", str(pid))
            if self._removed() is None:
                return
            time.sleep(_PAUSE)
        self.remove()

    def left(self) -> bool:
        """Tell whether a process is in it."""
        try:
            return b"populated 1" in _read(f"{self.directory}/cgroup.events")
        except OSError:  # cgroup v1 has no such file, and a group that is gone no file at all
            return next(members(self.directory), None) is not None

    def descriptors(self) -> Iterator[int]:
        """Iterate over descriptors of the processes in it, each good until the next."""
        for pid in members(self.directory):
            try:
                descriptor = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                if self._has(pid):  # still: the number was not another process's when it was opened
                    yield descriptor
            finally:
                os.close(descriptor)

    def kill(self) -> bool:
        """Have the kernel kill all of it, and what it forks meanwhile (cgroup.kill, Linux 5.14); tell whether it does."""
        return kill(self.directory)

    def remove(self) -> None:
        """Take it away, with what its processes have made below it."""
        if (why := self._removed()) is not None:
            log.warning("tree.not_removed", directory=self.directory, why=why)

    def _removed(self) -> str | None:
        """Take it away, and return why it could not be."""
        try:
            for directory, _, _ in os.walk(self.directory, topdown=False):
                os.rmdir(directory)
        except OSError as error:
            return error.strerror
        return None

    def _has(self, pid: int) -> bool:
        try:
            return self.name.encode() in _read(f"/proc/{pid}/cgroup").replace(b"\n", b"/").split(b"/")
        except OSError:
            return False


def members(directory: str) -> Iterator[int]:
    """Iterate over the processes in a group and in those below it; 0 for those that are in no namespace of ours."""
    for below, _, _ in os.walk(directory):
        with contextlib.suppress(OSError):
            yield from map(int, _read(f"{below}/cgroup.procs").split())


def kill(directory: str) -> bool:
    """Have the kernel kill all processes in a group and below; tell whether it does."""
    try:
        _write(f"{directory}/cgroup.kill", "1")
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()
