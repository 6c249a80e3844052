"""Where the hierarchies of control groups are mounted, and where in them a process is (cgroups(7), proc_pid_mountinfo(5))."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from typing import Final

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
# The one of cgroup v1 in which systemd keeps its units where there is no v2; it limits nothing.
_NAMED: Final = "name=systemd"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy: its directory ``mount`` shows what is below the group ``root``; ``unified`` is cgroup v2."""

    mount: str
    root: str
    unified: bool

    def directory(self, cgroup: str) -> str | None:
        """Return the directory of the group that ``/proc/PID/cgroup`` names; None where this mount does not show it."""
        for line in cgroup.split("\n"):
            _, _, told = line.partition(":")
            controllers, separator, path = told.partition(":")
            if separator and controllers == ("" if self.unified else _NAMED):
                root = self.root.rstrip("/")
                if ".." in path.split("/") or not f"{path}/".startswith(f"{root}/"):
                    return None
                return self.mount + path[len(root) :].rstrip("/")
        return None


def hierarchies(mountinfo: str) -> list[Hierarchy]:
    """Return what ``/proc/self/mountinfo`` tells of the hierarchies that keep processes together: v2 before v1."""
    found = []
    for line in mountinfo.split("\n"):
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        root, mount = (_ESCAPED.sub(lambda match: chr(int(match[1], 8)), field) for field in fields[3:5])
        if kind[0] == "cgroup2" or (kind[0] == "cgroup" and _NAMED in kind[2].split(",")):
            found.append(Hierarchy(mount, root, unified=kind[0] == "cgroup2"))
    return sorted(found, key=lambda each: not each.unified)


@functools.cache
def mounted() -> list[Hierarchy]:
    """Return the hierarchies that this process sees, as they were when it first looked; none where it sees no /proc."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return hierarchies(file.read())
    except OSError:
        return []


def is_unified(directory: str | None) -> bool:
    """Tell whether a group is one of cgroup v2."""
    return directory is not None and any(f"{directory}/".startswith(f"{each.mount}/") for each in mounted() if each.unified)


def where(pid: int) -> str | None:
    """Return the directory of the control group that keeps a process, where there is one and it is seen here."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape", newline="") as file:
            told = file.read()
        return next((found for each in mounted() if (found := each.directory(told)) and os.path.isdir(found)), None)
    except OSError:
        return None
