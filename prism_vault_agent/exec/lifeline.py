"""The process between ``exec --supervise`` and the command: starts it, reaps its orphans, and ends all where we are killed.

It stays in the process group of the command and so sees what is sent to that group; the supervisor is in a group of its own.
"""

import _signal  # type: ignore[import-not-found]  # as in client.py
import _socket
import posix
import select
import time

from prism_vault_agent.exec import INTERNAL, defect, kernel, tree
from prism_vault_agent.exec.channel import AWAKE, CONTINUED, ENDED, GO, STOPPED, hear, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

GRACE = 10.0  # seconds, where nobody has told another
TERMS = 64  # bytes of the terms of a release, at most
NUDGE = 5  # milliseconds between two tries to wake the supervisor
_IMPATIENT = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)
_NAME = b"prism-lifeline"  # so that a killall of the supervisor does not mean this process too


def leave_to_command(kept: set[int]) -> None:
    """Close every descriptor but those ``kept``, and leave the working directory: what the command lets go is let go."""
    for name in posix.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                posix.close(int(name))
            except OSError:
                continue  # that of the listing itself
    posix.chdir("/")


def watch(
    channel: "_socket.socket", become: "Callable[[], int]", prepare: "Callable[[int], None]", *, own_group: bool
) -> "NoReturn":
    """Start the command with ``become`` after ``prepare``, and look after it to its end and that of all its descendants.

    ``prepare`` is given a descriptor that takes the terms of the release. ``own_group`` says that the supervisor could not
    leave its process group, so the command gets one of its own.
    """
    try:
        Lifeline(channel, own_group=own_group).run(become, prepare)
    finally:
        tree.kill_all()  # whatever went wrong, nothing is left
        kernel.exit_now(INTERNAL)


class Lifeline:
    """The state of this process. ``waking``: the supervisor is to be continued wherever it is stopped.

    It is, until it says that it has read the last of our ``changes``: it may be about to stop, and not have done so yet.
    """

    __slots__ = (
        "changes",
        "channel",
        "command",
        "group",
        "own_group",
        "poll",
        "signals",
        "status",
        "stopped",
        "supervisor",
        "waking",
    )

    def __init__(self, channel: "_socket.socket", *, own_group: bool) -> None:
        """Adopt what will be orphaned; ``channel`` leads to the supervisor."""
        self.channel = channel
        self.own_group = own_group
        self.supervisor = posix.getppid()
        self.group = posix.getpgrp()
        self.command = 0
        self.status: int | None = None
        self.stopped = self.waking = False
        self.changes = 0
        self.signals = kernel.signal_descriptor()
        kernel.adopt_orphans()
        self.poll = select.poll()
        self.poll.register(channel.fileno(), select.POLLIN)
        self.poll.register(self.signals, select.POLLIN)

    def run(self, become: "Callable[[], int]", prepare: "Callable[[int], None]") -> None:
        """Start, watch and end; the supervisor is told how the command ended when nothing of it is left."""
        if hear(self.channel) != GO:
            return
        terms, writing = posix.pipe()
        self.command = posix.fork()
        if self.command == 0:
            self._become(become, lambda: prepare(writing))
        posix.close(writing)
        leave_to_command({self.channel.fileno(), self.signals, terms})
        own_name = posix.open("/proc/self/comm", posix.O_WRONLY | posix.O_CLOEXEC)
        posix.write(own_name, _NAME)
        posix.close(own_name)
        while self.status is None:
            self._step()
        grace = posix.read(terms, TERMS)
        self._end_the_rest(self.status, int(grace) / 1000 if grace else GRACE)
        tell(self.channel, ENDED + self.status.to_bytes(4, "little"))
        self.waking |= self.stopped
        while self.waking:
            self._step()  # until it has ended
        kernel.exit_now(0)

    def _become(self, become: "Callable[[], int]", prepare: "Callable[[], None]") -> "NoReturn":
        """Be the child that becomes the command."""
        status = INTERNAL
        try:
            self.channel.close()
            posix.close(self.signals)
            if self.own_group:
                posix.setpgid(0, 0)
                _give_terminal(self.group, posix.getpid())
            prepare()
            status = become()
        except Exception as error:  # noqa: BLE001 - as in client.py: told in one line, without what it holds
            status = defect(error, [])
        finally:
            kernel.exit_now(status)

    def _step(self, limit: float | None = None) -> list[int]:
        """Wait for news, ``limit`` seconds at most, and act on it; return the signals that the supervisor passed on."""
        # Only where it is stopped: a SIGCONT takes away a SIGTSTP that has come and is not read yet. And only where it has said
        # nothing before it was found so: it may have read what we told, and then have stopped anew.
        dozing = self.waking and posix.getppid() == self.supervisor and tree.is_stopped(self.supervisor)
        if self.waking:
            limit = 0.0 if dozing else NUDGE / 1000
        came = self.poll.poll(None if limit is None else int(limit * 1000))
        if dozing and not came:
            posix.kill(self.supervisor, _signal.SIGCONT)
        passed = []
        for descriptor, _ in came:
            if descriptor == self.signals:
                self._signalled(kernel.read_signals(self.signals))
                continue
            told = hear(self.channel)
            if not told:
                tree.kill_all()  # the supervisor is gone
                kernel.exit_now(0)
            if told[:1] == AWAKE:
                if told[1] == self.changes and self.status is None:
                    self.waking = False
            else:
                passed.append(told[0])
                self._signal_command(told[0])
        self._reap()
        return passed

    def _signalled(self, came: list[kernel.Signal]) -> None:
        """Act on what was sent to our group: the command has it too, unless it has left the group."""
        for each in came:
            if each.sender == self.supervisor or (each.number == _signal.SIGCHLD and not each.sender):
                continue
            if each.number == _signal.SIGCONT:
                self._continued()  # the supervisor may have stopped because we were stopped
            if self.own_group or self.status is not None:
                continue
            group = posix.getpgid(self.command)
            if group != self.group:  # directly, it would lead the group that this was sent to, and be given its terminal
                if each.number == _signal.SIGCONT:
                    _give_terminal(self.group, group)
                self._signal_command(each.number)

    def _signal_command(self, number: int) -> None:
        """Send a signal to the command, which is not reaped before its status is known."""
        if self.status is None:
            try:
                posix.kill(self.command, number)
            except PermissionError:
                return  # it runs as another user by now; directly, the sender could not have reached it either

    def _reap(self) -> None:
        for pid, status in tree.reap():
            if pid != self.command:
                continue
            if posix.WIFSTOPPED(status):
                if self.stopped:
                    self._continued()  # for a moment: whoever waits for the supervisor must see it go on and stop again
                self.stopped = True
                tell(self.channel, STOPPED + bytes([posix.WSTOPSIG(status)]) + pid.to_bytes(4, "little"))
            elif posix.WIFCONTINUED(status):
                self._continued()
            else:
                self.status = status

    def _continued(self) -> None:
        self.stopped, self.waking = False, True
        self.changes = (self.changes + 1) % 256
        tell(self.channel, CONTINUED + bytes([self.changes]))

    def _end_the_rest(self, status: int, grace: float) -> None:
        """End what the command left: SIGTERM, then SIGKILL after ``grace`` seconds; at once where the command was killed."""
        told: set[int] = set()
        continued: set[int] = set()
        deadline = time.monotonic() + (0.0 if status == _signal.SIGKILL else grace)
        while tree.children():
            left = deadline - time.monotonic()
            if left <= 0:
                tree.kill_all()
                return
            tree.signal_tree(_signal.SIGTERM, told)
            tree.signal_tree(_signal.SIGCONT, continued)  # who is stopped would not see it
            if any(number in _IMPATIENT for number in self._step(left + 0.001)):
                deadline = 0.0


def _give_terminal(left: int, taking: int) -> None:
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
