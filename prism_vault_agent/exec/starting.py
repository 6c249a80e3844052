"""The child of the lifeline that becomes the command, what it is sent before, and what the lifeline keeps of what it gets."""

import _socket
import posix
import time

from prism_vault_agent.exec import INTERNAL, defect, kernel, report
from prism_vault_agent.exec.channel import LONGEST, QUIET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


class Starting:
    """How the command is started: ``become``, given when that began, turns a process into it or returns an exit status.

    ``prepare`` is called before, with a descriptor that takes the terms of the release and what the supervisor says of the start.
    ``early``: what the next command is sent when it is there, each signal once, in the order of the last.
    """

    __slots__ = ("become", "early", "prepare")

    def __init__(self, become: "Callable[[float], int]", prepare: "Callable[[int, bytes], None]") -> None:
        """Keep both."""
        self.become = become
        self.prepare = prepare
        self.early: dict[int, None] = {}

    def keep(self, number: int) -> None:
        """Have the next command be sent this signal."""
        self.early.pop(number, None)
        self.early[number] = None

    def start(self, ours: tuple[int, int], terminal_of: int, how: bytes) -> tuple[int, int] | None:
        """Start the command without ``ours``, a channel and what signals are read from; return its process id and a descriptor.

        It is started by :meth:`let_go`, which is given both; until then all that it is sent is pending. It gets a process group
        of its own, and the terminal where that is the group ``terminal_of``'s, and says by a byte that it has left the other, so
        that what it is sent from then on is kept; not with 0. Where the kernel gives no further process or descriptor, say so
        unless told to be quiet, and return None.
        """
        try:
            here, there = _socket.socketpair()
            command = posix.fork()
        except OSError as error:
            from prism_vault_agent.exec import faults  # noqa: PLC0415 - only a failure pays for it

            if how[:1] != QUIET:
                report(faults.no_more(error), [])
            return None
        if command == 0:
            here.close()
            self._become(ours, terminal_of, there.detach(), how)
        there.close()
        return command, here.detach()

    def let_go(self, command: int, started: int) -> None:
        """Have a command be started that :meth:`start` returned, and be sent what was kept for it.

        What it was sent itself meanwhile, with its group, is still pending there, and is one with the same that is sent now.
        """
        for number in self.early:
            posix.kill(command, number)
        self.early.clear()
        try:
            posix.write(started, b"\0")
        except BrokenPipeError:
            return  # it was killed

    def _become(self, ours: tuple[int, int], terminal_of: int, lifeline: int, how: bytes) -> "NoReturn":
        status = INTERNAL
        try:
            begun = time.monotonic()
            channel, signals = ours
            if terminal_of:
                posix.setpgid(0, 0)
                kernel.read_signals(signals)  # sent to the group that we have left: who is in it passes them on
                give_terminal(terminal_of, posix.getpid())
                posix.write(lifeline, b"\0")
            posix.close(channel)
            posix.close(signals)
            if posix.read(lifeline, 1):  # else it was killed, and we are about to be
                self.prepare(lifeline, how)
                status = self.become(begun)
        except Exception as error:  # noqa: BLE001 - as in client.py: told in one line, without what it holds
            status = defect(error, [])
        finally:
            kernel.exit_now(status)


def read_terms(started: int) -> bytes:
    """Return what a command tells just before it is one, nothing where it ended before; ``started`` is closed."""
    try:
        return posix.read(started, LONGEST)
    except ConnectionResetError:
        return b""  # it was killed before it was let go
    finally:
        posix.close(started)


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
