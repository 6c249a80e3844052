"""What the helper does, each after looking at the very thing that it does it to. All raise ``Denied`` with what was wrong."""

from __future__ import annotations

import errno
import os
import signal
import stat
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import Denied
from prism_vault_agent.helper.processes import process_of
from prism_vault_agent.sink import linux
from prism_vault_agent.sink.place import OPTIONS, seen_by_others

if TYPE_CHECKING:
    from prism_vault_agent.helper.bounds import Bounds

_SPECIAL_BITS: Final = 0o7000
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def chown(bounds: Bounds, descriptor: int, uid: int, gid: int) -> None:
    """Give a file of the agent's, whose mode it has, to who is named for it; or give it back to the agent.

    Back it comes with any mode: who owns it may have changed that, and a change of owner takes special bits away (chown(2)).
    """
    back = (uid, gid) == (bounds.uid, bounds.gid)
    found = rendered(bounds, descriptor, any_mode=back)
    if not back:
        if found.st_uid != bounds.uid:
            raise Denied(f"the file belongs to uid {found.st_uid} and not to the agent", mend="take it back first")
        if why := bounds.why_not_given(uid, gid, stat.S_IMODE(found.st_mode)):
            raise Denied(why, mend="set owner, group and mode of a scope's file in the configuration that is root's")
    linux.chown(descriptor, uid, gid)


def open_to_read(bounds: Bounds, descriptor: int) -> int:
    """Return a descriptor by which a rendered file can be read, whoever owns it."""
    rendered(bounds, descriptor)
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


def kill(bounds: Bounds, pidfd: int, number: int, agent: int) -> int:
    """Signal a process that a scope's caller covers; return its number. Raises ``ProcessLookupError`` where it has ended."""
    process = process_of(pidfd)
    if why := bounds.why_not_ended(process, number, never=frozenset((os.getpid(), agent))):
        raise Denied(why, mend="name who may be ended as a caller of a scope, in the configuration that is root's")
    signal.pidfd_send_signal(pidfd, number)
    return process.pid


def is_directory(descriptor: int) -> bool:
    """Tell whether it is a directory that was passed, as that of a control group is."""
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def rendered(bounds: Bounds, descriptor: int, *, any_mode: bool = False) -> os.stat_result:
    """Return what fstat(2) says of a file, which must be a rendered one: regular, plain, with one name at most, in the memory."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise Denied("what was passed is not a regular file", mend="pass one that was rendered")
    if found.st_mode & _SPECIAL_BITS and not any_mode:
        raise Denied(f"the file has the mode {stat.S_IMODE(found.st_mode):04o}", mend="pass one that was rendered")
    if found.st_nlink > 1:
        raise Denied(f"the file has {found.st_nlink} names", mend="pass one that was rendered")
    try:
        top = os.stat(bounds.directory, follow_symlinks=False)
        above = os.stat(os.path.dirname(bounds.directory))
    except OSError as error:
        raise Denied(f"{bounds.directory}: {os.strerror(error.errno or 0)}", mend="mount the memory for files there") from None
    mounted = top.st_dev != above.st_dev
    if mounted and found.st_dev != top.st_dev:
        raise Denied(f"the file is not below {bounds.directory}", mend="pass one that was rendered")
    if not mounted or linux.file_system(descriptor) != linux.TMPFS_MAGIC:
        raise Denied(f"{bounds.directory} is no tmpfs of its own", mend="mount the memory for files there")
    return found


def mount(bounds: Bounds) -> None:
    """Mount the agent's memory for files where there is none, on a directory that only root could have put there."""
    path = bounds.directory
    if not seen_by_others():
        told = "the helper has a view of its own here, and nobody else would see a mount of its"
        raise Denied(told, mend="start the mount unit of the files")
    if not path:
        raise Denied("the configuration has no directory for files", mend="set [agent] files")
    descriptor = _made(bounds, path)
    try:
        if os.stat(os.path.dirname(path)).st_dev != os.fstat(descriptor).st_dev:
            raise Denied(f"something is mounted on {path} already", mend="unmount it")
        if os.listdir(descriptor):
            raise Denied(f"{path} is not empty", mend="empty it")
        _mount(f"/proc/self/fd/{descriptor}", f"{OPTIONS},uid={bounds.uid},gid={bounds.gid}")
    finally:
        os.close(descriptor)


def _mount(path: str, options: str) -> None:
    """Mount with ``noswap``, which takes Linux 6.4, or else without it."""
    try:
        linux.mount_tmpfs(path, f"{options},noswap")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        linux.mount_tmpfs(path, options)


def _made(bounds: Bounds, path: str) -> int:
    """Open the directory, made where it is missing: no link on the way, and nothing of it that others could have changed."""
    at = os.open("/", _DIRECTORY)
    names = path.split("/")[1:]
    for place, name in enumerate(names, start=1):
        try:
            try:
                below = os.open(name, _DIRECTORY, dir_fd=at)
            except FileNotFoundError:
                os.mkdir(name, 0o755, dir_fd=at)
                below = os.open(name, _DIRECTORY, dir_fd=at)
        except OSError as error:
            told = f"/{'/'.join(names[:place])}: {os.strerror(error.errno or 0)}"
            raise Denied(told, mend="name a directory that is reached without links") from None
        finally:
            os.close(at)
        at = below
        found = os.fstat(at)
        owners = (0, bounds.uid) if place == len(names) else (0,)
        if found.st_uid not in owners or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
            os.close(at)
            raise Denied(f"/{'/'.join(names[:place])} could be changed by others", mend="make it root's and chmod go-w")
    return at
