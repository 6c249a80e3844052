"""The child of the lifeline that becomes the command, and what the lifeline keeps of what the command gets."""

import posix
import time

from prism_vault_agent.exec import INTERNAL, defect, kernel, report
from prism_vault_agent.exec.channel import QUIET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


class Starting:
    """How the command is started: ``become``, given when that began, turns a process into it or returns an exit status.

    ``prepare`` is called before, with a descriptor that takes the terms of the release and what the supervisor says of the start.
    """

    __slots__ = ("become", "prepare")

    def __init__(self, become: "Callable[[float], int]", prepare: "Callable[[int, bytes], None]") -> None:
        """Keep both."""
        self.become = become
        self.prepare = prepare

    def start(self, ours: tuple[int, ...], terminal_of: int, how: bytes) -> tuple[int, int] | None:
        """Start the command without the descriptors that are ``ours``; return its process id, and what its terms are read from.

        It gets a process group of its own, and the terminal where that is the group ``terminal_of``'s; not with 0. Where the
        kernel gives no further process or descriptor, say so unless told to be quiet, and return None.
        """
        reading = writing = -1
        try:
            reading, writing = posix.pipe()
            command = posix.fork()
        except OSError as error:
            from prism_vault_agent.exec import faults  # noqa: PLC0415 - only a failure pays for it

            if how[:1] != QUIET:
                report(faults.no_more(error), [])
            if reading >= 0:
                posix.close(reading)
                posix.close(writing)
            return None
        if command == 0:
            self._become((*ours, reading), terminal_of, writing, how)
        posix.close(writing)
        return command, reading

    def _become(self, ours: tuple[int, ...], terminal_of: int, terms: int, how: bytes) -> "NoReturn":
        status = INTERNAL
        try:
            begun = time.monotonic()
            for descriptor in ours:
                posix.close(descriptor)
            if terminal_of:
                posix.setpgid(0, 0)
                give_terminal(terminal_of, posix.getpid())
            self.prepare(terms, how)
            status = self.become(begun)
        except Exception as error:  # noqa: BLE001 - as in client.py: told in one line, without what it holds
            status = defect(error, [])
        finally:
            kernel.exit_now(status)


def leave_to_command(kept: set[int]) -> None:
    """Close every descriptor but those ``kept``, and leave the working directory: what the command lets go is let go."""
    for name in posix.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                posix.close(int(name))
            except OSError:
                continue  # that of the listing itself
    posix.chdir("/")


def join_group(leader: int) -> None:
    """Be in the process group of a child, which makes it too; whoever is first."""
    for pid in (leader, 0):
        try:
            posix.setpgid(pid, leader)
        except OSError:
            continue  # it is another program by now, and leads its group; or it has ended


def give_terminal(left: int, taking: int) -> None:
    """Make the process group ``taking`` the terminal's foreground, where ``left`` is."""
    try:
        terminal = posix.open("/dev/tty", posix.O_RDWR | posix.O_CLOEXEC)
    except OSError:
        return  # there is none
    try:
        if posix.tcgetpgrp(terminal) == left:
            posix.tcsetpgrp(terminal, taking)
    except OSError:
        return  # it hung up
    finally:
        posix.close(terminal)
