"""A control group below the one in which a process is: whatever that process starts is in it, whoever its parent is by then.

It is made for the run and named after it, so nobody else is in it and it is never mistaken for another one. Being below the group
of the unit or session, it leaves both to systemd as they were: what is below a unit belongs to it, for its limits, its accounting
and its end.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.agent.trees import cgroupfs
from prism_vault_agent.agent.trees.descriptors import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger()


@dataclass(slots=True)
class Group:
    """The group at ``directory``."""

    directory: str

    @property
    def name(self) -> str:
        """Its own name, which no other group has."""
        return os.path.basename(self.directory)

    @property
    def is_told_by_parents(self) -> bool:
        """Whether only parents tell what is of the tree: False."""
        return False

    def enter(self, pid: int) -> None:
        """Make it and put a process there. Raises ``OSError`` or ``CannotCreate``, and then nothing has changed."""
        cgroupfs.make(self.directory, pid)

    def leave(self) -> None:
        """Put whoever is there back to where it was, and take the group away; blocks while any of them is about to end."""
        self._told(cgroupfs.leave(self.directory))

    def left(self) -> bool:
        """Tell whether a process is in it."""
        return cgroupfs.populated(self.directory)

    def descriptors(self) -> Iterator[int]:
        """Iterate over descriptors of the processes in it, each good until the next."""
        return opened(cgroupfs.members(self.directory), self._has)

    def kill(self) -> bool:
        """Have the kernel kill all of it, and what it forks meanwhile (cgroup.kill, Linux 5.14); tell whether it does. Blocks."""
        return cgroupfs.kill(self.directory)

    def remove(self) -> None:
        """Take it away, with what its processes have made below it."""
        self._told(cgroupfs.removed(self.directory))

    def _told(self, why: str | None) -> None:
        if why is not None:
            log.warning("tree.not_removed", directory=self.directory, why=why)

    def _has(self, pid: int) -> bool:
        try:
            return self.name.encode() in cgroupfs.read(f"/proc/{pid}/cgroup").replace(b"\n", b"/").split(b"/")
        except OSError:
            return False
