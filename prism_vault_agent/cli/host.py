"""What this host's kernel and limits give: the checks of ``doctor`` that need no configuration."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli.checks import Check, judge
from prism_vault_agent.exec import kernel, tree

if TYPE_CHECKING:
    from collections.abc import Callable

SO_PEERPIDFD: Final = 77  # linux/asm-generic/socket.h, since 6.5; Python 3.11 has no name for it
_NOT_DUMPABLE: Final = 1
_LOCKED: Final = 2


def checks(*, units: bool = False, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> list[Check]:
    """Return all checks of this host. ``units``: whether a caller is known by unit or container. The paths are the kernel's."""
    hardening = _in_child(_harden)
    return [
        peer_pidfd(),
        judge(
            "a process can be held on to",
            "G6",
            holds=hasattr(os, "pidfd_open") and _opens_itself(),
            why="pidfd_open(2)",
            mend="use Linux 5.3 or later",
            needed=True,
        ),
        judge(
            "the agent's memory is closed to its own user",
            "G4",
            holds=bool(hardening & _NOT_DUMPABLE),
            why="prctl(2) PR_SET_DUMPABLE",
            mend="allow prctl in the sandbox that this runs in",
            needed=True,
        ),
        supervision(adopts=bool(_in_child(_adopt)), lists=tree.has_lists()),
        core(_text(proc / "sys/kernel/core_pattern"), can_limit=bool(_in_child(_limit_core))),
        swap(_text(proc / "swaps"), locked=bool(hardening & _LOCKED)),
        hibernation(_text(Path("/sys/power/disk")), _text(proc / "swaps")),
        random_numbers(ready=_has_entropy()),
        ptrace(_text(proc / "sys/kernel/yama/ptrace_scope")),
        visible(proc),
        control_groups(cgroup, needed=units),
    ]


def peer_pidfd() -> Check:
    """Return whether the kernel hands out a process descriptor of who is at the other end of a socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        try:
            os.close(ours.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
            holds = True
        except OSError:
            holds = False
    return judge(
        "callers are known by process descriptor",
        "G6",
        holds=holds,
        why="SO_PEERPIDFD",
        mend="use Linux 6.5 or later; until then callers are known by pid and start time, which is weaker",
    )


def supervision(*, adopts: bool, lists: bool) -> Check:
    """Return whether what a supervised command has started ends with its supervisor, and how it is found."""
    why = "orphans are adopted" if adopts else "prctl(2) PR_SET_CHILD_SUBREAPER is refused"
    why += " and listed by the kernel" if adopts and lists else ""
    why += ", but found among all processes, which takes longer: the kernel has no CONFIG_PROC_CHILDREN" if not lists else ""
    mend = "allow prctl in the sandbox that this runs in"
    return judge("what a supervised command starts ends with it", "G6", holds=adopts, why=why, mend=mend)


def core(pattern: str, *, can_limit: bool) -> Check:
    """Return whether no core dump can hold a secret.

    A limit of 0 does not stop a handler that ``core_pattern`` pipes to; a limit of one byte does (core(5)).
    """
    if can_limit:
        return judge(
            "commands leave no core dump", "G4", holds=True, why="RLIMIT_CORE can be set to one byte", mend="", needed=True
        )
    piped = pattern.startswith("|")
    why = "the hard limit is 0" + (
        ", which does not stop the handler in kernel.core_pattern" if piped else ", and no handler takes cores"
    )
    return judge("commands leave no core dump", "G4", holds=not piped, why=why, mend="set LimitCORE=1 instead of 0", needed=True)


def swap(swaps: str, *, locked: bool) -> Check:
    """Return whether secrets in memory cannot be written to swap."""
    name = "memory does not reach the disk"
    on = [line.split()[0] for line in swaps.splitlines()[1:] if line.split()]
    if not on:
        return judge(name, "G4", holds=True, why="no swap is on", mend="")
    if locked:
        return judge(name, "G4", holds=True, why="the agent's memory can be locked; that of your commands is theirs", mend="")
    why = f"swap is on ({', '.join(on)}) and memory cannot be locked"
    return judge(name, "G4", holds=False, why=why, mend="set LimitMEMLOCK=infinity for the agent, or encrypt the swap")


def hibernation(disk: str, swaps: str) -> Check:
    """Return whether the host cannot write all of its memory to a disk: locked memory and a tmpfs without swap go there too.

    ``disk`` is how it hibernates (``/sys/power/disk``; empty where the kernel cannot, ``[disabled]`` where it may not).
    """
    name = "memory is not written to a disk as a whole"
    if not disk.strip() or "[disabled]" in disk:
        return judge(name, "G4", holds=True, why="the host does not hibernate", mend="")
    if len(swaps.splitlines()) < 2:
        return judge(name, "G4", holds=True, why="there is no swap to hibernate to", mend="")
    mend = "systemctl mask hibernate.target hybrid-sleep.target suspend-then-hibernate.target, or encrypt the swap"
    return judge(name, "G4", holds=False, why="the host can hibernate, with locked memory and rendered files", mend=mend)


def random_numbers(*, ready: bool) -> Check:
    """Return whether keys, nonces and identifiers are made of numbers that nobody can guess; until then who needs one waits."""
    why = "the kernel's generator is seeded" if ready else "the kernel's generator is not seeded yet: who needs a key waits"
    mend = "give the virtual machine a virtio-rng device, or wait until more has happened on the host"
    return judge("keys cannot be guessed", "G4", holds=ready, why=why, mend=mend)


def ptrace(scope: str) -> Check:
    """Return whether a process cannot attach to others of its user."""
    restricted = scope.strip() in ("1", "2", "3")
    why = f"kernel.yama.ptrace_scope is {scope.strip()}" if scope else "this kernel has no Yama"
    mend = "set kernel.yama.ptrace_scope to 1, or run commands as a user of their own"
    return judge("commands are closed to others of their user", "G4", holds=restricted, why=why, mend=mend)


def visible(proc: Path) -> Check:
    """Return whether the processes of others can be looked at, as the attestation of callers needs."""
    name, needs = "callers can be looked at", "G6"
    if not (proc / "self").exists():
        mend = f"mount it: mount -t proc proc {proc}"
        return judge(name, needs, holds=False, why=f"{proc} is not mounted here", mend=mend, needed=True)
    hidden = _hidepid(_text(proc / "self/mountinfo"), str(proc))
    seen = bool(_text(proc / "1/stat"))
    why = "/proc shows the processes of all users" if seen else f"/proc hides processes of other users{hidden}"
    mend = "run the agent as root, or in the group of /proc's gid= option"
    return judge(name, needs, holds=seen, why=why, mend=mend, needed=True)


def control_groups(cgroup: Path, *, needed: bool) -> Check:
    """Return whether the kernel tells the unit or container of a process."""
    there = (cgroup / "cgroup.controllers").exists()
    why = f"{cgroup} is cgroup v2" if there else f"{cgroup} is not cgroup v2"
    mend = "mount cgroup v2; until then callers with unit or container match nobody"
    return judge("units and containers are told apart", "G6", holds=there, why=why, mend=mend, needed=needed)


def _hidepid(mountinfo: str, mount: str) -> str:
    """Return the ``hidepid`` option of the /proc mount, for the message."""
    for line in mountinfo.splitlines():
        fields = line.split()
        if mount in fields[4:5]:
            options = ",".join(fields[5:]).split(",")
            return next((f" ({option})" for option in options if option.startswith("hidepid=")), "")
    return ""


def _has_entropy() -> bool:
    """Tell whether getrandom(2) answers without waiting."""
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        return False
    return True


def _opens_itself() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _harden() -> int:
    from prism_vault_agent.process import harden  # noqa: PLC0415 - only the child that is hardened needs it

    done = harden("prism-vault doctor")
    return _NOT_DUMPABLE * done.not_dumpable | _LOCKED * done.memory_locked


def _adopt() -> int:
    kernel.adopt_orphans()
    return 1


def _limit_core() -> int:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except (ValueError, OSError):
        return 0
    return 1


def _in_child(answer: Callable[[], int]) -> int:
    """Return what ``answer`` returns (a small number), 0 where it fails; in a process of its own, since it cannot be undone."""
    child = os.fork()
    if child == 0:
        status = 0
        try:
            status = answer()
        finally:
            os._exit(status)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
