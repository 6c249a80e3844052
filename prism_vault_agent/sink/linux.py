"""The system calls that Python has no function for: openat2, renameat2, fstatfs, mount, fchownat.

They raise ``OSError`` as ``os`` does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import Final

# openat2(2), Linux 5.6; the number is the same on all architectures since pidfd_send_signal.
_OPENAT2: Final = 437
_RESOLVE_NO_XDEV: Final = 0x01
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_AT_EMPTY_PATH: Final = 0x1000
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
TMPFS_MAGIC: Final = 0x0102_1994  # statfs(2)
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
_TRIES: Final = 1000
_STATFS_BYTES: Final = 256  # struct statfs has 120 on 64 bits; its first word is f_type

_libc = ctypes.CDLL(None, use_errno=True)


def open_below(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` below ``directory``: no link on the way, no way out of it, no other file system.

    By openat2(2) or, where a filter of system calls leaves that out (``RestrictSUIDSGID=``), component by component.
    """
    try:
        return _openat2(directory, path, flags, mode)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    return _walk(directory, path, flags, mode)


def _openat2(directory: int, path: str, flags: int, mode: int) -> int:
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, mode, _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH)
    for left in range(_TRIES, -1, -1):
        descriptor = int(_libc.syscall(_OPENAT2, directory, path.encode(), ctypes.byref(how), ctypes.sizeof(how)))
        if descriptor >= 0:
            return descriptor
        # EAGAIN: something was renamed meanwhile, and the kernel cannot tell whether it was on the way (openat2(2)). Or, with
        # O_NONBLOCK, its owner has a lease on it, and will for a while.
        if ctypes.get_errno() not in (errno.EINTR, errno.EAGAIN) or not left:
            raise _error(path)
    raise AssertionError("unreachable")


def _walk(directory: int, path: str, flags: int, mode: int) -> int:
    """Open each component from the one before, and nothing but a directory of the same file system on the way."""
    names = path.split("/")
    if ".." in names or "" in names[:1]:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    device = os.fstat(directory).st_dev
    at = directory
    for place, name in enumerate(names, start=1):
        last = place == len(names)
        try:
            wanted = flags if last else os.O_PATH | os.O_DIRECTORY
            below = os.open(name, wanted | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=at)
        finally:
            if at != directory:
                os.close(at)
        at = below
        found = os.fstat(at)
        # O_PATH opens a link itself.
        why = errno.ELOOP if stat.S_ISLNK(found.st_mode) else errno.EXDEV if found.st_dev != device else 0
        if why:
            os.close(at)
            raise OSError(why, os.strerror(why), path)
    return at


def rename_below(directory: int, old: str, new: str, flags: int) -> None:
    """Rename below ``directory``, with RENAME_NOREPLACE or RENAME_EXCHANGE."""
    while _libc.renameat2(directory, old.encode(), directory, new.encode(), flags) != 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _error(old)


def file_system(descriptor: int) -> int:
    """Return the magic number of the file system that something is on."""
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    while _libc.fstatfs(descriptor, found) != 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _error("")
    return int.from_bytes(found.raw[: ctypes.sizeof(ctypes.c_long)], "little")


def mount_tmpfs(path: str, options: str) -> None:
    """Mount a tmpfs on ``path`` that holds no programs and no devices."""
    if _libc.mount(b"prism-vault", os.fsencode(path), b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options.encode()) != 0:
        raise _error(path)


def chown(descriptor: int, uid: int, gid: int) -> None:
    """Change who owns what a descriptor of any kind is of, also one of O_PATH (fchownat(2), AT_EMPTY_PATH)."""
    if _libc.fchownat(descriptor, b"", ctypes.c_uint32(uid), ctypes.c_uint32(gid), _AT_EMPTY_PATH) != 0:
        raise _error("")


def _error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
