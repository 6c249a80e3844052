"""What a process of ours does to itself before it holds anything: not dumpable, no core, memory locked where the host allows."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import resource
from dataclasses import dataclass
from typing import Final

from setproctitle import setproctitle

from prism_vault_agent.errors import ConfigError

PR_SET_DUMPABLE: Final = 4
MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Hardening:
    """Which protections took hold; ``doctor`` and ``status`` tell them."""

    not_dumpable: bool
    memory_locked: bool


def require_proc() -> None:
    """Raise ``ConfigError`` where /proc is not there, by which the agent knows its callers and itself."""
    if not os.path.exists("/proc/self/status"):
        raise ConfigError("/proc is not mounted here, or hides this process", mend="mount it: mount -t proc proc /proc")


def harden(title: str) -> Hardening:
    """Make this process unreadable to its own user, coreless and, where the limit allows, unswappable; name it ``title``.

    prctl(2) PR_SET_DUMPABLE also makes ``/proc/PID/environ``, ``mem`` and ``fd`` root's. mlockall(2) with MCL_ONFAULT
    locks only what is touched; it needs CAP_IPC_LOCK or ``LimitMEMLOCK=infinity``.
    """
    setproctitle(title)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    not_dumpable = _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    locked = False
    if _may_lock():
        locked = _libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0
    return Hardening(not_dumpable, locked)


@functools.cache  # a forked worker may what its parent may
def _may_lock() -> bool:
    """Tell whether all of our memory may be locked: no limit, or CAP_IPC_LOCK (bit 14 of the effective set, capabilities(7)).

    Asked before mlockall, because a partial limit would make later allocations fail instead of the call itself.
    """
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    with contextlib.suppress(FileNotFoundError), open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> 14 & 1)
    return False
