"""A control group that the helper makes, kills and takes away for an agent that may not: see ``helper/groups.py``."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prism_vault_agent.agent.trees import cgroupfs
from prism_vault_agent.agent.trees.group import Group
from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.helper.client import Helper
from prism_vault_agent.helper.wire import group_of

if TYPE_CHECKING:
    from collections.abc import Callable

# How long a command waits for a group, and how long the helper is not asked again by one once it was not there.
SECONDS: Final = 3.0
AWAY_SECONDS: Final = 30.0
_away_until = 0.0


@dataclass(slots=True)
class Helped(Group):
    """The group at ``directory``, made by the helper at ``helper``."""

    helper: str

    @classmethod
    def below(cls, directory: str, name: str, helper: str) -> Helped:
        """Return the one for the run ``name`` below the group at ``directory``."""
        return cls(f"{directory}/{cgroupfs.name_of(group_of(name))}", helper)

    def enter(self, pid: int) -> None:
        """Have it made, and a process put there. Raises ``OSError`` or ``CannotCreate``, and then nothing has changed."""
        global _away_until  # noqa: PLW0603 - there is one helper, whatever a run's tree is
        descriptor = os.pidfd_open(pid)
        try:
            with Helper(self.helper, SECONDS) as helper:
                helper.group(descriptor, cgroupfs.numbers_of(self.name))
        except CannotCreate as error:
            if error.reason == "no_helper":
                _away_until = time.monotonic() + AWAY_SECONDS
            raise
        finally:
            os.close(descriptor)
        os.stat(self.directory)  # else it was elsewhere by then

    def leave(self) -> None:
        """Have whoever is there put back to where it was, and the group taken away; blocks."""
        try:
            self._asked(lambda helper, descriptor: helper.ungroup(descriptor))
        except CannotCreate as error:
            self._told(error.line())
        except ProcessLookupError:
            return  # it is gone

    def kill(self) -> bool:
        """Have the kernel kill all of it; tell whether it does. Blocks."""
        try:
            return self._asked(lambda helper, descriptor: helper.kill(descriptor, signal.SIGKILL))
        except (CannotCreate, ProcessLookupError):
            return False

    def remove(self) -> None:
        """Have it taken away, without waiting for that."""
        asyncio.get_running_loop().run_in_executor(None, self.leave)

    def _asked(self, ask: Callable[[Helper, int], None]) -> bool:
        """Ask for something to be done to the group; tell whether there is one."""
        try:
            descriptor = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            with Helper(self.helper) as helper:
                ask(helper, descriptor)
        finally:
            os.close(descriptor)
        return True


def is_there(helper: str) -> bool:
    """Tell whether the helper may be asked for groups: its socket is there, and it was not away when it was last asked."""
    return bool(helper) and time.monotonic() >= _away_until and os.path.exists(helper)
