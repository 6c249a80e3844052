"""A tree found by looking at every process: what can be told to have been started by one that is known, and that again.

Told it can be as long as a process's parent is known and has not ended, or a known process is in the same process group or
session, which one of them has begun. A command that adopts its orphans (PR_SET_CHILD_SUBREAPER, ``exec/client.py``) is the parent
of its daemons while it lives; so that they are known when it has ended, somebody looks meanwhile (:meth:`Sweep.follow`). What had
left parent, group and session before anybody looked is not found, unless its control group has been the tree's alone
(:class:`Place`). A number is never taken for a process: its start time goes with it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from prism_vault_agent.agent.began import began
from prism_vault_agent.agent.trees.cgroupfs import members
from prism_vault_agent.agent.trees.descriptors import opened
from prism_vault_agent.agent.trees.unit import invocation

if TYPE_CHECKING:
    from collections.abc import Iterator


class Process(NamedTuple):
    """What the kernel says of a process: parent, process group, session, and its start in clock ticks since boot."""

    parent: int
    group: int
    session: int
    started: int


@dataclass(frozen=True, slots=True)
class Place:
    """A control group that the tree has to itself, as long as it is that one and of that start of its unit.

    ``beside`` are processes in it that are none of the tree, with their starts: those above a supervised command.
    """

    directory: str
    inode: int
    unit: str
    invocation: str
    beside: frozenset[tuple[int, int]] = frozenset()

    @classmethod
    def of(cls, directory: str, unit: str | None, beside: frozenset[tuple[int, int]] = frozenset()) -> Place:
        """Return what a group is now. Raises ``OSError`` where it is gone."""
        return cls(directory, os.stat(directory).st_ino, unit or "", invocation(unit or ""), beside)

    def members(self) -> set[int]:
        """Return the tree's processes; none where it is another group by now, or systemd has started its unit anew."""
        with contextlib.suppress(OSError):
            if os.stat(self.directory).st_ino == self.inode and invocation(self.unit) == self.invocation:
                return set(members(self.directory)) - {pid for pid, started in self.beside if is_alive(pid, started)}
        return set()


@dataclass(slots=True)
class Sweep:
    """The tree of the process ``pid`` that began at ``started``. ``known`` is what it is by now: number and start of each."""

    pid: int
    started: int
    place: Place | None = None
    known: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        """Know the first of them."""
        self.known = {self.pid: self.started}

    @property
    def is_told_by_parents(self) -> bool:
        """Whether nothing but who is whose parent, and begun groups and sessions, tells what is of the tree."""
        return self.place is None

    def follow(self) -> None:
        """Take note of what is there now, so that it is known also when what has started it has ended; forget what has ended."""
        found = {pid: process for pid, started in self.known.items() if (process := look(pid)) and process.started == started}
        waiting = list(found)
        while waiting:
            parent = waiting.pop()
            for pid in children(parent):
                if pid not in found and (process := look(pid)) is not None and process.parent == parent:
                    found[pid] = process
                    waiting.append(pid)
        begun = {number for process in found.values() for number in (process.group, process.session)}
        kept = {pid: started for pid, started in self.known.items() if pid in begun}
        self.known = kept | {pid: process.started for pid, process in found.items()}

    def left(self) -> bool:
        """Tell whether any that is known still lives, or its place has anybody in it."""
        if any(is_alive(pid, started) for pid, started in self.known.items()):
            return True
        return self.place is not None and bool(self.place.members())

    def descriptors(self) -> Iterator[int]:
        """Look anew, and iterate over descriptors of all that are known and live, each good until the next."""
        self._look()
        known = dict(self.known)
        return opened(known, lambda pid: is_alive(pid, known[pid]))

    def kill(self) -> bool:
        """Nobody but us kills these: False."""
        return False

    def leave(self) -> None:
        """Nothing was done with the process."""

    def remove(self) -> None:
        """There is nothing to take away."""

    def _look(self) -> None:
        """Add to what is known whatever it has started."""
        found = {pid: process for pid in processes() if pid != os.getpid() and (process := look(pid)) is not None}
        alive = {pid for pid, started in self.known.items() if pid in found and found[pid].started == started}
        new = found.keys() & self.place.members() if self.place is not None else set()
        while True:
            # A group or session keeps its number as long as anybody is in it: one with a known process in it is no other's.
            groups = {found[pid].group for pid in alive} & self.known.keys()
            sessions = {found[pid].session for pid in alive} & self.known.keys()
            new |= {
                pid
                for pid, one in found.items()
                if one.parent in alive or one.group in groups or one.session in sessions
            }  # fmt: skip
            new -= alive
            if not new:
                return
            self.known.update({pid: found[pid].started for pid in new})
            alive |= new


def processes() -> Iterator[int]:
    """Iterate over the numbers of all processes."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def children(parent: int) -> list[int]:
    """Return the children of a process: each thread has a list of its own, where the kernel keeps any (proc_tid_children(5))."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{parent}/task"):
            with open(f"/proc/{parent}/task/{thread}/children", "rb", buffering=0) as file:
                found += map(int, file.readall().split())
    return found


def look(pid: int) -> Process | None:
    """Return what the kernel says of a process (proc_pid_stat(5)); None where it has ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.readall().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X") and int(fields[17]) <= 1:  # else others of its threads run on
        return None
    return Process(int(fields[1]), int(fields[2]), int(fields[3]), began(fields))


def is_alive(pid: int, started: int) -> bool:
    """Tell whether the process that began then under this number has not ended."""
    process = look(pid)
    return process is not None and process.started == started
