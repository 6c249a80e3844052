"""Calls of the kernel's that the interpreter has no name for: signals from a descriptor, adopting orphans, and a timer."""

import _ctypes  # `ctypes` around it costs 15 more modules
import _signal  # type: ignore[import-not-found]  # as in launch.py
import posix
import resource
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
MCL_ALL = 7  # what is there, what comes, and only once it is touched: mlockall(2)
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SFD_NONBLOCK = 0o4000  # bits/signalfd.h, as below
SFD_CLOEXEC = 0o2000000
TFD_NONBLOCK = 0o4000  # linux/timerfd.h, as below
TFD_CLOEXEC = 0o2000000
TFD_TIMER_ABSTIME = 1
SIGNAL_RECORD = 128  # bytes of one struct signalfd_siginfo, see signalfd(2)
SIGNAL_SET = 128  # bytes of the C library's sigset_t

# Every signal that a process can do something about; the C library keeps 32 and 33 to itself.
CATCHABLE = frozenset(range(1, 65)) - {_signal.SIGKILL, _signal.SIGSTOP, 32, 33}

exit_now = posix._exit  # noqa: SLF001 - its public name is in `os`, which an interpreter without `site` has not loaded


class Signal:
    """A signal that was sent to us: its ``number``, and ``sender``, the process that sent it; 0 for one of the kernel's."""

    __slots__ = ("number", "sender")

    def __init__(self, record: bytes) -> None:
        """Read one ``struct signalfd_siginfo``: number, errno, code and process id are its first four words."""
        number, _, code, pid = (int.from_bytes(record[at : at + 4], sys.byteorder, signed=True) for at in (0, 4, 8, 12))
        self.number = number
        self.sender = pid if code <= 0 else 0  # codes above 0 are the kernel's: sigaction(2)


def signal_descriptor() -> int:
    """Return a descriptor from which the signals are read that are blocked, all that can be. Raises ``OSError``."""
    members = sum(1 << (number - 1) for number in CATCHABLE)
    return _call("signalfd", -1, members.to_bytes(8, sys.byteorder) + bytes(SIGNAL_SET - 8), SFD_NONBLOCK | SFD_CLOEXEC)


def read_signals(descriptor: int) -> list[Signal]:
    """Return the signals that have come, in the order in which the kernel hands them out."""
    try:
        records = posix.read(descriptor, 64 * SIGNAL_RECORD)
    except BlockingIOError:
        return []
    return [Signal(records[at : at + SIGNAL_RECORD]) for at in range(0, len(records), SIGNAL_RECORD)]


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (PR_SET_CHILD_SUBREAPER). Raises ``OSError``."""
    _call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def be_continued_at_end_of_parent() -> None:
    """Be continued when the parent ends, so that its end is heard of (PR_SET_PDEATHSIG, SIGCONT). Raises ``OSError``.

    The kernel does so by itself only where the parent's end leaves a group without anybody who could, and the group has stopped
    by then: setpgid(2), exit(2).
    """
    _call("prctl", PR_SET_PDEATHSIG, _signal.SIGCONT, 0, 0, 0)


def set_name(name: bytes) -> None:
    """Give this process another name in ``comm``, of at most 15 bytes. Raises ``OSError``."""
    _call("prctl", PR_SET_NAME, name, 0, 0, 0)


def close_memory() -> None:
    """Make this process unreadable to its own user, and unswappable where no limit stands against it. Raises ``OSError``.

    As ``prism_vault_agent/process.py`` does for the agent.
    """
    _call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        _call("mlockall", MCL_ALL)


def timer() -> int:
    """Return a descriptor that is ready when CLOCK_BOOTTIME says what :func:`set_timer` does. Raises ``OSError``."""
    return _call("timerfd_create", time.CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC)


def set_timer(descriptor: int, at: float | None) -> None:
    """Have a timer be ready ``at`` so many seconds, and not before; never with None. It is not ready any more if it was.

    That clock runs on while the host sleeps, so a timer that is due by then is ready when it wakes: timerfd_create(2).
    """
    seconds, part = divmod(max(int(at * 1_000_000_000), 1), 1_000_000_000) if at is not None else (0, 0)
    word = 8 if sys.maxsize > 2**32 else 4
    spec = bytes(2 * word) + seconds.to_bytes(word, sys.byteorder) + part.to_bytes(word, sys.byteorder)
    _call("timerfd_settime", descriptor, TFD_TIMER_ABSTIME, spec, None)


def _call(name: str, *arguments: int | bytes | None) -> int:
    """Return what a function of the C library returns: numbers are passed as ``int``, bytes by their address, None as NULL."""
    program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # typeshed forgets that None is the program itself, dlopen(3)
    function = _ctypes.dlsym(program, name)
    result: int = _ctypes.call_function(function, arguments)
    if result < 0:
        raise OSError(f"{name} failed")
    return result
