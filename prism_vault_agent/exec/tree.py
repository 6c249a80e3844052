"""The processes below this one, which has adopted their orphans: listed, reaped and ended.

Only what is certainly ours is signalled. The number of an own child cannot become another process's before it is reaped here;
of the others a descriptor is opened first, and then asked whether it is the child of one that is known. Whoever is orphaned
becomes an own child, so in the end the whole tree is reached, whatever sessions and groups it has made.
"""

import _signal  # type: ignore[import-not-found]  # as in launch.py
import posix

_PIECE = 65_536
_LEVELS = 64  # that are gone down at a time, each with a descriptor; what is below comes up when these have ended


def children() -> list[int]:
    """Return the process ids of our children, adopted ones and zombies included."""
    return _children(posix.getpid())


def _children(parent: int) -> list[int]:
    """Return the children of a process, none where it is gone. Each of its threads has a list of its own."""
    found: list[int] = []
    try:
        for thread in posix.listdir(f"/proc/{parent}/task"):
            found += map(int, _read(f"/proc/{parent}/task/{thread}/children").split())
    except OSError:
        return found if has_lists() else children_by_parent(parent)
    return found


def has_lists() -> bool:
    """Tell whether the kernel keeps lists of children (CONFIG_PROC_CHILDREN); without, all processes are looked at."""
    try:
        posix.stat("/proc/thread-self/children")
    except OSError:
        return False
    return True


def children_by_parent(parent: int) -> list[int]:
    """Return the same, found by looking at every process of the host."""
    return [int(name) for name in posix.listdir("/proc") if name.isdigit() and _parent(int(name)) == parent]


def _parent(pid: int) -> int:
    """Return the parent of a process, 0 where the process is gone."""
    return int(_stat(pid)[1])


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped by a signal."""
    return _stat(pid)[0] == b"T"


def switches(pid: int) -> int:
    """Return how often a process has run and was switched away from, 0 where it is gone."""
    try:
        lines = _read(f"/proc/{pid}/status").split(b"\n")
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if b"voluntary_ctxt_switches:" in line)


def _stat(pid: int) -> list[bytes]:
    """Return state, parent and what follows the name in ``/proc/PID/stat``, see proc_pid_stat(5)."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return [b"X", b"0"]


def signal_tree(number: int, but: set[int]) -> set[int]:
    """Send a signal to all descendants that are not in ``but``, and add them to it; return the own children that it reached.

    Who runs as another user by now may not be signalled and is left out.
    """
    reached = set()
    for pid in children():
        _signal_below(pid, None, number, but, _LEVELS)
        if pid not in but:
            try:
                posix.kill(pid, number)
            except PermissionError:
                continue
            but.add(pid)
            reached.add(pid)
    return reached


def _signal_below(parent: int, known: int | None, number: int, but: set[int], levels: int) -> None:
    """Send a signal to what is below a process: the descendants first. ``known`` is its descriptor, None for an own child."""
    for pid in _children(parent) if levels else []:
        try:
            descriptor = posix.pidfd_open(pid)
        except OSError:
            continue
        try:
            if _parent(pid) != parent or not _is_there(known):
                continue
            _signal_below(pid, descriptor, number, but, levels - 1)
            if pid not in but:
                _signal.pidfd_send_signal(descriptor, number)
                but.add(pid)
        except OSError:
            continue
        finally:
            posix.close(descriptor)


def _is_there(known: int | None) -> bool:
    """Tell whether a process is not reaped yet, so that its number is still its own."""
    try:
        if known is not None:
            _signal.pidfd_send_signal(known, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def reap() -> list[tuple[int, int]]:
    """Return the process id and status, as waitpid(2) has it, of each child that ended, stopped or was continued."""
    found: list[tuple[int, int]] = []
    try:
        while True:
            pid, status = posix.waitpid(-1, posix.WNOHANG | posix.WUNTRACED | posix.WCONTINUED)
            if pid == 0:
                return found
            found.append((pid, status))
    except ChildProcessError:
        return found


def kill_all() -> None:
    """Kill all descendants until none is left but those that we may not signal."""
    while signal_tree(_signal.SIGKILL, set()):
        try:
            posix.waitpid(-1, 0)
        except ChildProcessError:
            return
        reap()


def _read(path: str) -> bytes:
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        parts = [posix.read(descriptor, _PIECE)]
        while parts[-1]:
            parts.append(posix.read(descriptor, _PIECE))
        return b"".join(parts)
    finally:
        posix.close(descriptor)
