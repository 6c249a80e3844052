"""In which systemd unit and in which container a process is, from the text of ``/proc/PID/cgroup`` (cgroups(7)). Pure."""

from __future__ import annotations

import itertools
import re
from typing import Final

_CONTAINER: Final = re.compile(r"(?:docker|libpod|crio|cri-containerd)-([0-9a-f]{64})\.scope")
_ID: Final = re.compile(r"[0-9a-f]{64}")
_ENGINES: Final = ("docker", "kubepods", "..")
_UNIT: Final = re.compile(r".+\.(?:service|scope)", re.DOTALL)


def unit_of(cgroup: str) -> str | None:
    """Return the unit of the host's systemd that ``/proc/PID/cgroup`` names, or None.

    The outermost one, as ``systemctl status PID`` says: what lies below a unit is for its user to name.
    """
    for path in _paths(cgroup):
        outermost = next((part for part in path if part != ".." and not part.endswith(".slice")), "")
        if _UNIT.fullmatch(outermost):
            return outermost
    return None


def container_of(cgroup: str) -> str | None:
    """Return the container id (64 hex digits) that ``/proc/PID/cgroup`` names, or None.

    Only where the host's container engine puts it: a user's own units could name any.
    """
    for path in _paths(cgroup):
        if not (path[0] in _ENGINES or path[0].endswith(".slice")):
            continue
        for above, part in itertools.pairwise(["", *path]):
            if match := _CONTAINER.fullmatch(part):
                return match[1]
            if above in ("docker", "..") and _ID.fullmatch(part):
                return part
            if _UNIT.fullmatch(part):
                break
    return None


def _paths(cgroup: str) -> list[list[str]]:
    """Return the parts of the process's place in systemd's hierarchy (cgroups(7)); ``..`` leads out of our own namespace."""
    found = [line.split(":", 2)[1:] for line in cgroup.split("\n") if line.count(":") >= 2]
    return [path.split("/")[1:] or [""] for controllers, path in found if controllers in ("", "name=systemd")]
