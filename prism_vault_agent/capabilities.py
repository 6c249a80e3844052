"""Which of root's powers a process of ours keeps (capabilities(7)); everything else is given up at its start, for good.

An agent of its own user has none of them to begin with.
"""

from __future__ import annotations

import ctypes
import enum
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable


class Capability(enum.IntEnum):
    """Those that anything here needs, by the kernel's numbers."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    FOWNER = 3
    KILL = 5
    SETPCAP = 8
    IPC_LOCK = 14
    SYS_PTRACE = 19
    SYS_ADMIN = 21


# What each is for stands in docs/operate.md; a worker, which has values, and the parent of workers have fewer.
OF_AGENT: Final = frozenset(
    (
        Capability.CHOWN,
        Capability.DAC_OVERRIDE,
        Capability.FOWNER,
        Capability.KILL,
        Capability.IPC_LOCK,
        Capability.SYS_PTRACE,
        Capability.SYS_ADMIN,
    )
)
OF_WORKER: Final = frozenset((Capability.CHOWN, Capability.DAC_OVERRIDE, Capability.FOWNER, Capability.IPC_LOCK))

_VERSION_3: Final = 0x2008_0522
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def keep(kept: Iterable[Capability], *, execs: bool = True) -> None:
    """Give up every capability of this thread but ``kept``, and those that a program could be started with.

    Called before there are further threads, which each have their own. ``execs`` is whether programs will be started: without,
    none could gain anything, whoever owns it. Raises ``OSError`` where the kernel does not do it.
    """
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()
    _call(_libc.capget, ctypes.byref(header), sets)
    permitted = sets[0].permitted | sets[1].permitted << 32
    mask = sum(1 << each for each in frozenset(kept)) & permitted
    if permitted >> Capability.SETPCAP & 1:
        number = 0
        while (has := _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:
            if has and not mask >> number & 1:
                _call(_libc.prctl, _PR_CAPBSET_DROP, number, 0, 0, 0)
            number += 1
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)  # nothing to clear before Linux 4.3
    wanted = (_Sets * 2)(*(_Sets(low, low, 0) for low in (mask & 0xFFFF_FFFF, mask >> 32)))
    if bytes(wanted) != bytes(sets):  # who has none to give up may be forbidden the call itself
        _call(_libc.capset, ctypes.byref(header), wanted)
    if not execs:
        _call(_libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _call(function: ctypes._NamedFuncPointer, *words: object) -> None:
    if function(*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
