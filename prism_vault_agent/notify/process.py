"""Signals the process that a pid file names; never one that somebody else wrote into it, and never one that got the number later.

Who can write the file, or put another one in its place, chooses whom we signal. So one of these holds: only root and we can, all
the way from ``/``; or one user can, and the process is that user's by all of its user numbers (credentials(7)).
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
import time
from typing import TYPE_CHECKING, Final

from prism_vault_agent.config import way
from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.helper.client import signal_by
from prism_vault_agent.notify.occasion import not_told

if TYPE_CHECKING:
    from prism_vault_agent.notify.occasion import Occasion
    from prism_vault_agent.scope import Notify

LARGEST: Final = 32
# A daemon writes its number after it has started; clocks of files and of processes tick differently.
SLACK_SECONDS: Final = 2.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STARTED: Final = 19  # field 22 of proc_pid_stat(5), counted from the one behind the name


async def tell(notify: Notify, occasion: Occasion) -> str:
    """Send the signal; return why there was nobody to tell, empty where it was sent. Raises ``Unavailable`` where it must not."""
    path = notify.target[0]
    try:
        pid, uid, written = _read(path)
    except FileNotFoundError:
        return "there is no pid file"
    except OSError as error:
        raise not_told(f"{path} cannot be read: {os.strerror(error.errno or 0)}", "correct it") from None
    if pid in (1, os.getpid()):
        raise not_told(f"{path} names process {pid}", "correct it")
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return "the process that its pid file names has ended"
    try:
        _allowed(path, pid, uid, written)
        if _ended(process):  # so what was read of its number may have been another's
            return "the process that its pid file names has ended"
        await _send(process, pid, signal.Signals[f"SIG{notify.how}"], occasion.helper)
    except (FileNotFoundError, ProcessLookupError):
        return "the process that its pid file names has ended"
    finally:
        os.close(process)
    return ""


async def _send(process: int, pid: int, number: int, helper: str) -> None:
    """Send a signal, by the helper where we may not."""
    try:
        signal.pidfd_send_signal(process, number)
    except PermissionError:
        whose = f"process {pid} is another user's"
        if not helper:
            raise not_told(whose, "run the agent as root, or notify otherwise") from None
        try:
            await asyncio.to_thread(signal_by, helper, os.dup(process), number)
        except CannotCreate as error:
            raise not_told(f"{whose}, and {error.message}", error.mend) from None


def _read(path: str) -> tuple[int, int | None, float]:
    """Return the process, the user whose it must be (None: anybody's), and when the file was written."""
    writers = _writers(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        text = os.read(descriptor, LARGEST + 1) if stat.S_ISREG(found.st_mode) else b""
    finally:
        os.close(descriptor)
    digits = text.strip()
    if not digits.isdigit() or len(text) > LARGEST:
        raise not_told(f"{path} holds no process number", "correct it")
    if found.st_nlink != 1 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise not_told(f"{path} may be written by others, or has another name", f"chmod go-w {path}")
    writers |= {found.st_uid} - _ours()
    if len(writers) > 1 or (writers and found.st_uid not in writers):
        what = f"{path} can be replaced by another user than its owner"
        raise not_told(what, "keep it in a directory of root's or its owner's")
    return int(digits), writers.pop() if writers else None, found.st_mtime


def _writers(path: str) -> set[int]:
    """Return the users other than root and us who can change what ``path`` leads to, its file left aside."""
    owners = set()
    for place, found in way.steps(path):
        if stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
            owners.add(found.st_uid)
        if stat.S_ISDIR(found.st_mode) and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
            raise not_told(f"{place} may be written by others", f"chmod go-w {place}, or keep the pid file elsewhere")
    return owners - _ours()


def _ours() -> set[int]:
    return {0, os.geteuid()}


def _ended(process: int) -> bool:
    poll = select.poll()  # select(2) knows no descriptor over 1023
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))


def _allowed(path: str, pid: int, uid: int | None, written: float) -> None:
    """Raise where the process is not the user's whose it must be, or began after the file was written."""
    with open(f"/proc/{pid}/status", "rb") as status:
        users = next(line.split()[1:5] for line in status if line.startswith(b"Uid:"))
    if uid is not None and {int(each) for each in users} != {uid}:
        raise not_told(f"{path} names process {pid}, which is not its owner's", "have root own the pid file, or correct it")
    with open(f"/proc/{pid}/stat", "rb") as stat_file:
        started = int(stat_file.read().rpartition(b")")[2].split()[_STARTED]) / _TICKS
    if time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + started > written + SLACK_SECONDS:
        raise not_told(f"{path} is older than process {pid}: its own has ended", "start the service anew, or remove the file")
