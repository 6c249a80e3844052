"""What the kernel says of a process that somebody passed a descriptor of."""

from __future__ import annotations

import select

from prism_vault_agent.agent.front.cgroup import container_of, unit_of
from prism_vault_agent.errors import Denied
from prism_vault_agent.helper.bounds import Process


def process_of(pidfd: int) -> Process:
    """Return the process behind a descriptor.

    Raises ``ProcessLookupError`` where it has ended, ``Denied`` where the descriptor is none of a process that we see.
    """
    pid = _number(pidfd)
    try:
        status = _read(f"/proc/{pid}/status")
        cgroup = _read(f"/proc/{pid}/cgroup")
    except FileNotFoundError:
        raise ProcessLookupError from None
    if ended(pidfd):  # else all of the above was read of this process and of no later one
        raise ProcessLookupError
    return Process(
        pid=pid,
        uids=frozenset(_numbers(status, "Uid:")),
        groups=frozenset(_numbers(status, "Gid:") + _numbers(status, "Groups:")),
        unit=unit_of(cgroup),
        container=container_of(cgroup),
    )


def ended(pidfd: int) -> bool:
    """Tell whether the process behind a descriptor has ended (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _number(pidfd: int) -> int:
    """Return the number of the process (proc_pid_fdinfo(5)): 0 where we do not see it, -1 where it is gone."""
    found = [line.split()[1] for line in _read(f"/proc/self/fdinfo/{pidfd}").split("\n") if line.startswith("Pid:")]
    if not found:
        raise Denied("what was passed is no descriptor of a process", mend="pass one of pidfd_open(2)")
    pid = int(found[0])
    if pid < 0:
        raise ProcessLookupError
    if pid == 0:
        raise Denied("the process is in a namespace that the helper cannot see", mend="end it there")
    return pid


def _numbers(status: str, name: str) -> list[int]:
    return next([int(number) for number in line.split()[1:]] for line in status.split("\n") if line.startswith(name))


def _read(path: str) -> str:
    # A name of a process may hold a carriage return, which ends no line.
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return file.read()
