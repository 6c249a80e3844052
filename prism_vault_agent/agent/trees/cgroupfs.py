"""What can be done to a control group by its directory (cgroups(7)): made, looked into, killed, left, taken away."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# What the name of every group of ours begins with.
NAME: Final = "prism-vault-"
# The agent looks into what the helper has made, whatever umask that has.
_MODE: Final = 0o755
_ATTEMPTS: Final = 5
_NUMBERS: Final = struct.Struct("!II")
_ROUNDS: Final = 100
_PAUSE: Final = 0.01


def name_of(numbers: tuple[int, int]) -> str:
    """Return the name of the group that the helper makes for a run (see ``helper/wire.py``)."""
    return NAME + _NUMBERS.pack(*numbers).hex()


def numbers_of(name: str) -> tuple[int, int]:
    """Return the numbers that a name was made of. Raises ``ValueError`` for any other name."""
    try:
        return _NUMBERS.unpack(bytes.fromhex(name.removeprefix(NAME)))
    except struct.error:
        raise ValueError(name) from None


def make(directory: str, pid: int) -> None:
    """Make a group and put a process there. Raises ``OSError``, and then nothing has changed.

    Whoever calls this holds a descriptor of the process, and asks it afterwards whether it was that one. An agent that starts may
    take an empty group away before the process is in it (:func:`empty`): then it is made again.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        os.mkdir(directory)
        try:
            os.chmod(directory, _MODE)
            move(directory, pid)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(directory)
            if error.errno not in (errno.ENOENT, errno.ENODEV) or attempt == _ATTEMPTS:
                raise
        else:
            return


def move(directory: str, pid: int) -> None:
    """Put a process into a group."""
    _write(f"{directory}/cgroup.procs", str(pid))


def members(directory: str) -> Iterator[int]:
    """Iterate over the processes in a group and in those below it; 0 for those that are in no namespace of ours."""
    for below, _, _ in os.walk(directory):
        with contextlib.suppress(OSError):
            yield from map(int, read(f"{below}/cgroup.procs").split())


def populated(directory: str) -> bool:
    """Tell whether a process is in a group or below."""
    try:
        return b"populated 1" in read(f"{directory}/cgroup.events")
    except OSError:  # cgroup v1 has no such file, and a group that is gone no file at all
        return next(members(directory), None) is not None


def kill(directory: str) -> bool:
    """Have the kernel kill all processes in a group and below, and what these fork; tell whether it does (Linux 5.14)."""
    try:
        _write(f"{directory}/cgroup.kill", "1")
    except OSError:
        return False
    return True


def leave(directory: str) -> str | None:
    """Put whoever is in a group to the one above, and take it away; blocks while any of them is about to end.

    Return why it could not be taken away.
    """
    above = os.path.dirname(directory)
    for _ in range(_ROUNDS):
        for pid in members(directory):
            with contextlib.suppress(OSError):
                move(above, pid)
        if removed(directory) is None:
            return None
        time.sleep(_PAUSE)
    return removed(directory)


def removed(directory: str) -> str | None:
    """Take a group away, with those below it, and return why it could not be."""
    try:
        for below, _, _ in os.walk(directory, topdown=False):
            os.rmdir(below)
    except OSError as error:
        return error.strerror
    return None


def empty(top: str) -> Iterator[str]:
    """Iterate over the groups of ours below ``top`` that nobody is in: left by an agent that was killed before it kept one."""
    for directory, below, _ in os.walk(top):
        for name in below:
            if name.startswith(NAME) and not populated(f"{directory}/{name}"):
                yield f"{directory}/{name}"


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def read(path: str) -> bytes:
    """Return what a file of the kernel's says."""
    with open(path, "rb", buffering=0) as file:
        return file.readall()
