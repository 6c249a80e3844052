"""A unit of systemd as a tree: every process in it counts, from one start of it until it is stopped or started anew."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prism_vault_agent.agent.front.cgroup import unit_of
from prism_vault_agent.agent.trees import cgroupfs, hierarchy
from prism_vault_agent.agent.trees.descriptors import opened

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Holding:
    """One start of a unit, by its invocation id; ``pid`` is the process that becomes its command."""

    unit: str
    invocation: str
    pid: int

    def left(self) -> bool:
        """Tell whether the unit is still active since then, and has its credentials.

        systemd takes them away when it no longer is, and of late when its last process has ended, too, though it stays active
        (``RemainAfterExit=``, seen with 257 and not with 252). Before there are any, a process of the unit's asks for them.
        """
        return invocation(self.unit) == self.invocation and (kept(self.unit) or any(True for _ in self._processes()))

    def descriptors(self) -> Iterator[int]:
        """Iterate over descriptors of all processes of the unit, each good until the next."""
        return opened(self._processes(), lambda pid: unit(pid) == self.unit)

    def kill(self) -> bool:
        """Have the kernel kill all of them by the unit's control group, where it does; else return False."""
        for pid in self._processes():
            directory = hierarchy.where(pid) or ""
            if f"/{self.unit}/" in f"{directory}/":
                above, _, _ = f"{directory}/".partition(f"/{self.unit}/")
                return cgroupfs.kill(f"{above}/{self.unit}")
        return False

    def leave(self) -> None:
        """Nothing was done with it."""

    def remove(self) -> None:
        """It is systemd's to take away."""

    def _processes(self) -> Iterator[int]:
        return (int(name) for name in os.listdir("/proc") if name.isdigit() and unit(int(name)) == self.unit)


def unit(pid: int) -> str | None:
    """Return the unit in which a process is; None where it is in none, or has ended."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace", newline="") as file:
            return unit_of(file.read())
    except OSError:
        return None


def kept(name: str) -> bool:
    """Tell whether systemd keeps credentials for a unit.

    They are a mount of its own; in ours the place of others' credentials may be hidden.
    """
    place = f"/run/credentials/{name}"
    escaped = place.replace("\\", r"\134")  # proc_pid_mountinfo(5)
    try:
        with open("/proc/1/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            return any(line.split(" ", 5)[4] == escaped for line in mounts) or os.path.isdir(place)
    except OSError:
        return True


def invocation(name: str) -> str:
    """Return the id of a unit's current start, which systemd keeps in a link for its journal; empty where it is not active."""
    try:
        return os.readlink(f"/run/systemd/units/invocation:{name}") if name else ""
    except OSError:
        return ""
