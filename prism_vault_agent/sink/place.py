"""The directory that all rendered files are below: in memory, ours alone to write, one agent's at a time.

::

    /run/prism-vault/files/       0711; a tmpfs of our own where we may mount one
      .lock                       held by the agent that serves
      .staged/                    0700; what is not visible yet, or no longer
      .ended/                     0700; what ended and is not safely recorded yet (see ``agent/files/ends.py``)
      web/                        0755; the visible generation of scope web
        .generation               0600; what it is (see ``record.py``)
        web.env                   owner and mode as the scope says
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.sink import linux

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

Risk = Literal["swap", "disk"]
Memory = Literal["noswap", "no-swap-in-use", "swap", "disk"]

STAGED: Final = ".staged"
LOCK: Final = ".lock"
OPTIONS: Final = "size=64m,nr_inodes=32768,mode=0711"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Place:
    """The directory, open and locked. ``memory`` says how sure it is that no value reaches a disk."""

    path: str
    descriptor: int
    lock: int
    memory: Memory

    def still(self) -> None:
        """Raise ``CannotCreate`` where the path leads elsewhere by now: unmounted, moved or replaced."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError as error:
            raise cannot(self.path, error) from None
        if not os.path.samestat(there, os.fstat(self.descriptor)):
            raise CannotCreate(f"{self.path} is another directory than it was", mend="restart the agent")

    def close(self) -> None:
        """Let another agent have it. What is there stays."""
        os.close(self.descriptor)
        os.close(self.lock)


def open_place(path: str, risks: Collection[Risk] = (), mount: Callable[[], None] | None = None) -> Place:
    """Make and check the directory at the absolute ``path``, mounting a tmpfs there where we may, and lock it.

    ``risks`` are those that the operator has allowed by name: ``swap``, a tmpfs that may be swapped out; ``disk``, a file system
    that is none in memory. ``mount`` has another process mount it, where we may not. Raises ``CannotCreate`` that names what is
    wrong and where.
    """
    refused = ""
    try:
        if mount is not None and _unmounted(path):
            try:
                mount()
            except CannotCreate as error:
                refused = error.message if error.reason == "helper_refused" else ""  # what is there may do all the same
        _make(path)
        descriptor = _walk(path)
        if _mount(path, descriptor):
            os.close(descriptor)
            descriptor = _walk(path)
        try:
            memory = _memory(path, descriptor, risks, refused)
            os.fchmod(descriptor, 0o711)
            lock = _lock(path, descriptor)
            _make_staged(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise cannot(path, error) from None
    return Place(path, descriptor, lock, memory)


@contextlib.contextmanager
def left_place(path: str) -> Iterator[int]:
    """Open and lock the directory as an agent left it, within the ``with``; -1 where there is none. Raises ``CannotCreate``."""
    if not os.path.isdir(os.path.join(path, STAGED)):
        yield -1
        return
    descriptor = _walk(path)
    try:
        lock = _lock(path, descriptor)
        try:
            yield descriptor
        finally:
            os.close(lock)
    finally:
        os.close(descriptor)


def cannot(path: str, error: OSError) -> CannotCreate:
    """Return what to tell of a failed system call."""
    why = os.strerror(error.errno or 0)
    mend = {
        errno.ENOSPC: "make room there, or render less",
        errno.EPERM: "run the agent as root, or give its files to its own user",
        errno.ENOSYS: "use a kernel that has the call: Linux 5.3 or later, and a filter that allows it",
        errno.ELOOP: "put a directory where the link is",
    }
    return CannotCreate(f"cannot write below {path}: {why}", mend=mend.get(error.errno or 0, "see the agent's log"))


def _make(path: str) -> None:
    """Make the directory and, as far as they are missing, those above it."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    try:
        os.mkdir(path, 0o711)
    except FileExistsError:
        return


def _walk(path: str) -> int:
    """Open the directory, component by component, none of which is a link or may be changed by others."""
    at = os.open("/", _DIRECTORY)
    here = ""
    for name in path.split("/")[1:]:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=at)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                told, mend = "is a symbolic link", "name a directory that is reached without links"
            else:
                told, mend = os.strerror(error.errno or 0), f"make it the directory of uid {os.geteuid()}"
            raise CannotCreate(f"{here}/{name}: {told}", mend=mend) from None
        finally:
            os.close(at)
        at, here = below, f"{here}/{name}"
        found = os.fstat(at)
        if (why := _fault(found, last=here == path)) is not None:
            os.close(at)
            raise CannotCreate(f"{here}: {why}", mend="choose another directory for [agent] files, or mend this one")
    return at


def _fault(found: os.stat_result, *, last: bool) -> str | None:
    """Return what is wrong with a directory on the way; what all may write is no danger above ours where it is sticky."""
    if found.st_uid not in (0, os.geteuid()) or (last and found.st_uid != os.geteuid()):
        return f"belongs to uid {found.st_uid}"
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others and (last or not found.st_mode & stat.S_ISVTX):
        return f"may be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def _unmounted(path: str) -> bool:
    """Tell whether nothing of its own is mounted at a path, or there is no such path."""
    try:
        return os.lstat(path).st_dev == os.lstat(os.path.dirname(path)).st_dev
    except FileNotFoundError:
        return True


def _mount(path: str, descriptor: int) -> bool:
    """Mount a tmpfs of our own where there is none yet and we may; tell whether we did. Without ``noswap`` before Linux 6.4."""
    above = os.stat(os.path.dirname(path))
    if above.st_dev != os.fstat(descriptor).st_dev or os.listdir(descriptor) or os.geteuid() != 0 or not seen_by_others():
        return False
    for options in (f"{OPTIONS},noswap", OPTIONS):
        try:
            linux.mount_tmpfs(path, options)
        except OSError as error:
            if error.errno == errno.EINVAL:
                continue
            return False
        return True
    return False


def seen_by_others() -> bool:
    """Tell whether others see what we mount: a service with a view of its own, as systemd makes one, mounts for itself.

    There "/" hears of the host's mounts and tells of none: it has a master (proc_pid_mountinfo(5)).
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        root = [line.partition(" - ")[0].split()[6:] for line in mounts if line.split()[4] == "/"][-1]
    return not any(tag.startswith("master:") for tag in root)


def _memory(path: str, descriptor: int, risks: Collection[Risk], refused: str) -> Memory:
    """Return how sure it is that what is written stays in memory. Raises ``CannotCreate`` for a risk that nobody has allowed.

    ``refused`` is why another process would not mount it.
    """
    also = f" ({refused})" if refused else ""
    if linux.file_system(descriptor) != linux.TMPFS_MAGIC:
        if "disk" not in risks:
            mend = 'name one on a tmpfs in [agent] files, or allow it with files_risks = ["disk"]'
            raise CannotCreate(f"{path} is not on a tmpfs, so secrets would reach a disk{also}", mend=mend)
        return "disk"
    if _noswap(os.fstat(descriptor).st_dev):
        return "noswap"
    with open("/proc/swaps", encoding="utf-8", errors="replace") as swaps:
        if len(swaps.read().splitlines()) <= 1:
            return "no-swap-in-use"
    if "swap" not in risks:
        mend = 'run the agent as root on Linux 6.4 or later, switch swap off, or allow it with files_risks = ["swap"]'
        raise CannotCreate(f"{path} is on a tmpfs that may be swapped to a disk{also}", mend=mend)
    return "swap"


def _noswap(device: int) -> bool:
    """Tell whether the tmpfs of this device number is mounted with ``noswap`` (proc_pid_mountinfo(5))."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        return any(line.split()[2] == number and "noswap" in line.split()[-1].split(",") for line in mounts)


def _lock(path: str, descriptor: int) -> int:
    """Lock the directory for this agent, until the descriptor is closed."""
    lock = linux.open_below(descriptor, LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise CannotCreate(f"another agent renders below {path}", mend="stop it, or set [agent] files to another") from None
    return lock


def _make_staged(descriptor: int) -> None:
    try:
        os.mkdir(STAGED, 0o700, dir_fd=descriptor)
    except FileExistsError:
        os.chmod(STAGED, 0o700, dir_fd=descriptor)
