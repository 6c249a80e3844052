"""Acting as another user of the host: a function in a forked child, or a program started with that user's rights."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Result = TypeVar("Result")

NOBODY = 65534
PR_SET_PDEATHSIG = 1
CLONE_NEWNS = 0x0002_0000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x4_0000

_libc = ctypes.CDLL(None, use_errno=True)


def become(uid: int, gid: int, groups: Sequence[int] = ()) -> None:
    """Give up every right but those of this user, for good."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def in_child(function: Callable[[], Result], uid: int | None = NOBODY, gid: int = NOBODY, groups: Sequence[int] = ()) -> Result:
    """Return what ``function`` returns, or raise what it raises, in a child with these rights (None: our own).

    Forked, not started anew: the other user need not be able to read the interpreter.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the tests only read logs
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            if uid is not None:
                become(uid, gid, groups)
            told: tuple[bool, object] = (True, function())
        except BaseException as error:
            told = (False, error)
        with contextlib.suppress(BaseException), os.fdopen(writing, "wb") as pipe:
            pickle.dump(told, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    os.waitpid(pid, 0)
    done, result = pickle.loads(content)
    if not done:
        raise result
    return result  # type: ignore[no-any-return]


def prefix(uid: int = NOBODY, gid: int = NOBODY) -> list[str]:
    """Return the words that go before a command to start it as another user who can read our interpreter and packages.

    Where a home directory that holds them is closed, the command gets a view of its own in which it is not.
    """
    needed = dict.fromkeys(os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, os.path.dirname(__file__)))
    return [sys.executable, "-I", __file__, str(uid), str(gid), os.pathsep.join(needed)]


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    if _libc.mount(*words, flags, None if options is None else options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def _closed(path: str) -> str | None:
    """Return the first directory above ``path`` that others may not enter."""
    above = "/"
    for part in path.split("/")[1:]:
        above = os.path.join(above, part)
        if not os.stat(above).st_mode & 0o001:
            return above
    return None


def _open_up(needed: Sequence[str]) -> None:
    """Show ``needed`` at their own paths, in a mount namespace of our own, with nothing closed above them."""
    closed: dict[str, list[str]] = {}
    for path in needed:
        if (place := _closed(path)) is not None:
            closed.setdefault(place, []).append(path)
    if not closed:
        return
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    for place, paths in closed.items():
        stash = tempfile.mkdtemp()
        kept = [(os.path.join(stash, str(number)), path) for number, path in enumerate(paths)]
        _mount("none", stash, "tmpfs", 0, "mode=0700")
        for inside, path in kept:
            os.mkdir(inside)
            _mount(path, inside, None, MS_BIND | MS_REC)
        _mount("none", place, "tmpfs", 0, "mode=0755")
        for inside, path in kept:
            os.makedirs(path, exist_ok=True)
            _mount(inside, path, None, MS_BIND | MS_REC)
        _libc.umount2(stash.encode(), 2)
        os.rmdir(stash)


if __name__ == "__main__":
    _open_up(sys.argv[3].split(os.pathsep))
    become(int(sys.argv[1]), int(sys.argv[2]))
    # A change of user forgets that we end with our parent (prctl(2)).
    _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    os.execv(sys.argv[4], sys.argv[4:])
