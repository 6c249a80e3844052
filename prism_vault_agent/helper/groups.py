"""Control groups of runs, made for an agent that may not: below the one that a process is in, where it may be ended."""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING, Final

from prism_vault_agent.agent.trees import cgroupfs, hierarchy
from prism_vault_agent.errors import Denied
from prism_vault_agent.helper.processes import ended, process_of
from prism_vault_agent.sink import linux

if TYPE_CHECKING:
    from prism_vault_agent.helper.bounds import Bounds

# Of cgroup v2 and of v1 (linux/magic.h).
_FILE_SYSTEMS: Final = frozenset((0x63677270, 0x27E0EB))


def make(bounds: Bounds, pidfd: int, numbers: tuple[int, int], agent: int) -> int:
    """Put a process that a scope's caller covers into a group of its own, below the one that it is in; return its number.

    Raises ``ProcessLookupError`` where it has ended, ``Denied`` where it is not covered, ``OSError`` where the kernel refuses.
    """
    process = process_of(pidfd)
    if why := bounds.why_not_ended(process, signal.SIGKILL, never=frozenset((os.getpid(), agent))):
        raise Denied(why, mend="name who may be ended as a caller of a scope, in the configuration that is root's")
    above = hierarchy.where(process.pid)
    if above is None:
        raise Denied(f"the control group of process {process.pid} is not seen here", mend="mount cgroup v2")
    directory = f"{above}/{cgroupfs.name_of(numbers)}"
    cgroupfs.make(directory, process.pid)
    if ended(pidfd):
        cgroupfs.leave(directory)
        raise ProcessLookupError
    return process.pid


def kill(descriptor: int, number: int) -> None:
    """Kill all processes of a group of ours."""
    directory = _ours(descriptor)
    if number != signal.SIGKILL:
        raise Denied("a control group can be killed and nothing else", mend="signal its processes")
    if not cgroupfs.kill(directory):
        raise Denied("the kernel cannot kill a control group", mend="kill its processes")


def leave(descriptor: int) -> None:
    """Put the processes of a group of ours to the one above, and take it away."""
    if why := cgroupfs.leave(_ours(descriptor)):
        raise Denied(f"the control group is not taken away: {why}")


def _ours(descriptor: int) -> str:
    """Return the directory of a control group that was made here: nobody else's has our name and our owner."""
    found, path = os.fstat(descriptor), os.readlink(f"/proc/self/fd/{descriptor}")
    made = (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and os.path.basename(path).startswith(cgroupfs.NAME)
        and linux.file_system(descriptor) in _FILE_SYSTEMS
    )
    try:
        same = made and os.path.samestat(found, os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        raise ProcessLookupError from None
    if not same:
        raise Denied("what was passed is no descriptor of a process, and no control group of the helper's", mend="pass one")
    return path
