"""One generation of a scope's files: staged where nobody sees it, switched in one step, cleared in one step.

``place`` is always the descriptor of the directory that ``place.py`` opened. A reader that opens a scope's directory, or any file
of it, gets one generation whole: renameat2(2) exchanges the directories. What a rotation replaces is unlinked, so that who has it
open reads it to its end; what is cleared is truncated before, so that who has it open reads nothing more.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.sink import linux, record
from prism_vault_agent.sink.owner import open_rendered, ours
from prism_vault_agent.sink.place import STAGED
from prism_vault_agent.sink.removal import attempt, remove

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prism_vault_agent.sink.owner import Owners
    from prism_vault_agent.sink.record import Written

# A reader passes through it to its file, whose mode decides; that a file is there is no secret.
_PASSABLE: Final = 0o755


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is to be: ``path`` below the scope's directory, with one directory of its own at most."""

    path: str
    content: bytes
    uid: int
    gid: int
    mode: int


@dataclass(frozen=True, slots=True)
class Staged:
    """A generation that is whole and not visible."""

    name: str
    files: list[Written]


def hidden(scope: str, mark: str = "") -> str:
    """Return a name where nobody sees a scope's directory: that of a ``mark``, else one that no other has."""
    return f"{STAGED}/{scope}.{mark or os.urandom(8).hex()}"


def stage(
    place: int, scope: str, contents: list[Content], told: dict[str, Any], owners: Owners | None = None, *, name: str = ""
) -> Staged:
    """Write a generation of ``scope`` where nobody sees it; a file that is as it was keeps its inode. Raises ``OSError``.

    Space for everything is had before the first byte is written. A failure leaves nothing behind but what :func:`sweep` clears;
    who knows the :func:`hidden` ``name`` can remove what a process that was killed left.
    ``owners`` gives to others what we may not; a file that was given away and is as it was keeps its time, not its inode.
    """
    name = name or hidden(scope)
    os.mkdir(name, 0o700, dir_fd=place)
    try:
        os.chmod(name, 0o700, dir_fd=place)  # whatever the umask made of it
        for directory in sorted({os.path.dirname(each.path) for each in contents} - {""}):
            os.mkdir(f"{name}/{directory}", _PASSABLE, dir_fd=place)
            os.chmod(f"{name}/{directory}", _PASSABLE, dir_fd=place)
        with contextlib.ExitStack() as opened:
            same: dict[str, int] = {}
            for each in contents:
                if (descriptor := _same(place, scope, each, owners)) is not None:
                    opened.callback(os.close, descriptor)
                    same[each.path] = descriptor
            written = _write(place, name, contents, same, owners)
        note = Content(record.NAME, record.encode(told, written), os.geteuid(), os.getegid(), 0o600)
        _write(place, name, [note], {}, None)
        os.chmod(name, _PASSABLE, dir_fd=place)
    except BaseException:
        with contextlib.suppress(OSError, CannotCreate):
            discard(place, name, owners)
        raise
    return Staged(name, written)


def switch(place: int, scope: str, staged: Staged, keep: str = "") -> bool:
    """Make a staged generation the visible one, in one step, and discard the one before, or ``keep`` it as what is staged there.

    Tell whether it is kept. Not done where it raises ``OSError``.
    """
    try:
        linux.rename_below(place, staged.name, scope, linux.RENAME_NOREPLACE)
    except FileExistsError:
        linux.rename_below(place, staged.name, scope, linux.RENAME_EXCHANGE)
        if keep:
            with contextlib.suppress(OSError):
                linux.rename_below(place, staged.name, keep, linux.RENAME_NOREPLACE)
                return True
        # What is left of the old one is not visible, and swept at the next start.
        with contextlib.suppress(OSError):
            remove(place, staged.name, None, truncate=False)
    return False


def bring_back(place: int, scope: str, kept: str, owners: Owners | None = None) -> None:
    """Make a kept generation the visible one again, in one step, and discard the other. Not done where it raises ``OSError``."""
    linux.rename_below(place, kept, scope, linux.RENAME_EXCHANGE)
    with contextlib.suppress(OSError, CannotCreate):
        discard(place, kept, owners)


def discard(place: int, name: str, owners: Owners | None = None) -> None:
    """Remove what is staged; a file that is visible too, since it did not change, stays as it is. Raises ``OSError``."""
    remove(place, name, owners, truncate=True, alone=True)


def clear(place: int, scope: str, owners: Owners | None = None) -> bool:
    """Take the visible generation of ``scope`` away: hidden in one step, emptied, unlinked. Tell whether there was one.

    Raises ``OSError`` (or what ``owners`` raises) of the first thing that failed, after everything else was done.
    """
    name = hidden(scope)
    try:
        linux.rename_below(place, scope, name, linux.RENAME_NOREPLACE)
    except FileNotFoundError:
        return False
    except OSError:
        name = scope  # where it cannot be hidden it is emptied all the same
    remove(place, name, owners, truncate=True)
    return True


def sweep(place: int, keep: Iterable[str], owners: Owners | None = None, staged: Iterable[str] = ()) -> list[str]:
    """Clear all that is staged but ``staged``, and every visible entry but those to ``keep``; return the names of the latter.

    All names are below ``place``. Raises as :func:`clear`, after everything else was done.
    """
    failed: list[Exception] = []
    unseen = {f"{STAGED}/{name}" for name in os.listdir(f"/proc/self/fd/{place}/{STAGED}")} - set(staged)
    for name in unseen:
        attempt(failed, partial(discard, place, name, owners))
    strangers = [name for name in os.listdir(place) if not name.startswith(".") and name not in set(keep)]
    for name in strangers:
        attempt(failed, partial(clear, place, name, owners))
    if failed:
        raise failed[0]
    return strangers


def _same(place: int, scope: str, wanted: Content, owners: Owners | None) -> int | None:
    """Return the visible file, open, where it is already as it is wanted; None where it is not."""
    try:
        descriptor = open_rendered(place, f"{scope}/{wanted.path}", owners)
    except OSError:
        return None
    found = os.fstat(descriptor)
    alike = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size == len(wanted.content)
    alike = alike and (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (wanted.uid, wanted.gid, wanted.mode)
    if alike and os.pread(descriptor, len(wanted.content) + 1, 0) == wanted.content:
        return descriptor
    os.close(descriptor)
    return None


def _write(place: int, name: str, contents: list[Content], same: dict[str, int], owners: Owners | None) -> list[Written]:
    """Link or write each file below the staged directory ``name``: owner, mode and space first, then bytes, then the name.

    Where ``owners`` must give one away, its owner comes last: who does not own a file may give it no name.
    """
    before = {path: os.fstat(descriptor) for path, descriptor in same.items()}
    files = {path: descriptor for path, descriptor in same.items() if ours(before[path])}
    with contextlib.ExitStack() as opened:
        made = [each for each in contents if each.path not in files]
        for each in made:
            files[each.path] = _reserve(place, f"{name}/{os.path.dirname(each.path)}".rstrip("/"), each, owners)
            opened.callback(os.close, files[each.path])
        for each in made:
            left = memoryview(each.content)
            while left:
                left = left[os.write(files[each.path], left) :]
            os.fsync(files[each.path])
            if each.path in before:
                os.utime(files[each.path], ns=(before[each.path].st_atime_ns, before[each.path].st_mtime_ns))
        written = []
        for each in contents:
            descriptor = files[each.path]
            os.link(f"/proc/self/fd/{descriptor}", f"{name}/{each.path}", dst_dir_fd=place, follow_symlinks=True)
            found = os.fstat(descriptor)
            if owners is not None and (found.st_uid, found.st_gid) != (each.uid, each.gid):
                owners.give(descriptor, each.uid, each.gid)
            written.append(record.Written.of(each.path, os.fstat(descriptor)))
    return written


def _reserve(place: int, directory: str, wanted: Content, owners: Owners | None) -> int:
    """Return a file without a name, with its owner, mode and space: nothing of it can go wrong after bytes are in it."""
    descriptor = linux.open_below(place, directory, os.O_TMPFILE | os.O_WRONLY, 0o600)
    try:
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid) != (wanted.uid, wanted.gid):
            try:
                os.fchown(descriptor, wanted.uid, wanted.gid)
            except PermissionError:
                if owners is None:
                    raise
        os.fchmod(descriptor, wanted.mode)
        if wanted.content:
            os.posix_fallocate(descriptor, 0, len(wanted.content))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
