"""The process between ``exec --supervise`` and the command: starts it, reaps its orphans, and ends all where we are killed.

It stays in the process group of the command and so sees what is sent to that group; the supervisor is in a group of its own.
"""

import _signal  # type: ignore[import-not-found]  # as in launch.py
import _socket
import posix
import select
import time

from prism_vault_agent.exec import INTERNAL, TEMPORARY, kernel, tree
from prism_vault_agent.exec.channel import (
    AWAKE,
    CONTINUED,
    ENDED,
    GO,
    GRACE,
    SENT,
    STOP,
    STOPPED,
    TERMS,
    WOKEN,
    Terms,
    hear,
    tell,
)
from prism_vault_agent.exec.starting import Starting, give_terminal, join_group, leave_to_command, read_terms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

NUDGE = 5  # milliseconds between two tries to wake the supervisor
_ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)
_NAME = b"prism-lifeline"  # so that a killall of the supervisor does not mean this process too


def watch(channel: "_socket.socket", starting: Starting, *, again: bool, own_group: bool) -> "NoReturn":
    """Start the command, and look after it to its end and that of all its descendants, as often as the supervisor says so.

    ``again``: what the caller has passed on is kept for the next start. ``own_group`` says that the supervisor could not leave
    its process group, so the command gets one of its own.
    """
    try:
        Lifeline(channel, starting, again=again, own_group=own_group).run()
    finally:
        tree.kill_all()  # whatever went wrong, nothing is left
        kernel.exit_now(INTERNAL)


class Lifeline:
    """The state of this process. ``waking``: the supervisor is to be continued wherever it is stopped.

    It is, until it says that it has read the last of our ``changes``: it may be about to stop, and not have done so yet.
    ``stopped``: how it was told that the command has stopped, nothing while it runs.
    ``deadline``: when what is left is killed (CLOCK_MONOTONIC seconds), if that is known.
    """

    __slots__ = (
        "again", "changes", "channel", "command", "deadline", "grace", "own_group", "poll",
        "signals", "starting", "status", "stopped", "supervisor", "terms", "waking",
    )  # fmt: skip

    def __init__(self, channel: "_socket.socket", starting: Starting, *, again: bool, own_group: bool) -> None:
        """Adopt what will be orphaned; ``channel`` leads to the supervisor."""
        self.channel = channel
        self.starting = starting
        self.again, self.own_group = again, own_group
        self.supervisor = posix.getppid()
        self.command, self.terms, self.changes = 0, -1, 0
        self.status: int | None = 0
        self.grace = GRACE
        self.deadline: float | None = None
        self.stopped, self.waking = b"", False
        self.signals = kernel.signal_descriptor()
        kernel.adopt_orphans()
        self.poll = select.poll()
        self.poll.register(channel.fileno(), select.POLLIN)
        self.poll.register(self.signals, select.POLLIN)

    def run(self) -> None:
        """Start, watch and end; the supervisor is told how the command ended when nothing of it is left."""
        while True:
            while not (order := self._step()).startswith(GO):
                continue
            self._start(order[1:])
            while self.status is None:
                self._step()
            if self.terms >= 0:
                self._read_terms()
            self._end_the_rest(self.status)
            if self.stopped:
                self._continued()
            self.starting.early.clear()  # the supervisor knows of it, and so whether to start anew
            tell(self.channel, ENDED + self.status.to_bytes(4, "little"))
            if not self.again:
                break
        while self.waking:
            self._step()  # until it has ended
        kernel.exit_now(0)

    def _start(self, how: bytes) -> None:
        terminal_of = (self.command or posix.getpgrp()) if self.own_group else 0
        self.deadline, self.stopped = None, b""
        started = self.starting.start((self.channel.fileno(), self.signals), terminal_of, how)
        if started is None:
            self.status = TEMPORARY << 8
            return
        if self.own_group and self.again:
            join_group(started[0])  # who types Ctrl-C means all of it: we are to hear that
        self._signalled(kernel.read_signals(self.signals))
        (self.command, self.terms), self.status = started, None
        self.starting.let_go(self.command, self.terms)
        self.poll.register(self.terms, select.POLLIN)
        kernel.set_name(_NAME)

    def _read_terms(self) -> None:
        """Read what the command says just before it is one; let its descriptors be its own where it is started only once."""
        self.poll.unregister(self.terms)
        told, self.terms = read_terms(self.terms), -1
        if told:
            terms = Terms(told)
            self.grace = terms.grace
            self.again |= terms.orders
            tell(self.channel, TERMS + told)
        if not self.again:
            leave_to_command({self.channel.fileno(), self.signals})

    def _step(self) -> bytes:
        """Wait for news, until the deadline at most, and act on it; return what the supervisor told last."""
        # Only where it is stopped: a SIGCONT takes away a SIGTSTP that has come and is not read yet. And only where it has said
        # nothing before it was found so: it may have read what we told, and then have stopped anew.
        dozing = self.waking and posix.getppid() == self.supervisor and tree.is_stopped(self.supervisor)
        limit = None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0) + 0.001
        if self.waking:
            limit = 0.0 if dozing else NUDGE / 1000
        came = self.poll.poll(None if limit is None else int(limit * 1000))
        if dozing and not came:
            posix.kill(self.supervisor, _signal.SIGCONT)
        told = b""
        for descriptor, _ in came:
            if descriptor == self.signals:
                self._signalled(kernel.read_signals(self.signals))
            elif descriptor == self.terms:
                self._read_terms()
            else:
                told = hear(self.channel)
                self._told(told)
        self._reap()
        if self.status is None and self.deadline is not None and time.monotonic() >= self.deadline:
            tree.signal_tree(_signal.SIGKILL, set())
            self.deadline = None
        return told

    def _told(self, told: bytes) -> None:
        """Act on what the supervisor tells, or on its end."""
        if not told:
            tree.kill_all()
            kernel.exit_now(0)
        if told[:1] == AWAKE:
            if told[1] == self.changes and (self.status is None or self.again):
                self.waking = False
        elif told[:1] == WOKEN:
            self._reap()
            if self.stopped and self.status is None and told[1] == self.changes:
                tell(self.channel, self.stopped)
        elif told == STOP:
            if self.status is None:
                self.deadline = time.monotonic() + self.grace
                self._signal_command(_signal.SIGTERM)
                self._signal_command(_signal.SIGCONT)  # who is stopped would not see it
        elif told[:1] != GO:
            if self.status is not None and self.deadline is not None and told[0] in _ENDING:
                self.deadline = 0.0
            self._signal_command(told[0])

    def _signalled(self, came: list[kernel.Signal]) -> None:
        """Act on what was sent to our group: the command has it too, unless it has left the group."""
        for each in came:
            if each.sender == self.supervisor or (each.number == _signal.SIGCHLD and not each.sender):
                continue
            if each.number in _ENDING:
                tell(self.channel, SENT + bytes([each.number]))
            if each.number == _signal.SIGCONT and not (self.stopped and tree.is_stopped(self.command)):
                self._continued()  # the supervisor may have stopped because we were stopped
            if self.status is not None:
                self._signalled_alone(each.number)
            elif not self.own_group and (group := posix.getpgid(self.command)) != posix.getpgrp():
                # Directly, it would lead the group that this was sent to, and be given its terminal.
                if each.number == _signal.SIGCONT:
                    give_terminal(posix.getpgrp(), group)
                self._signal_command(each.number)

    def _signalled_alone(self, number: int) -> None:
        """Act on what was sent to our group while there is no command: nobody else tells the next one of it."""
        if posix.getpgid(self.supervisor) == posix.getpgrp():
            return  # it has it too, and passes it on
        if not self.command or number in _ENDING:
            self.starting.keep(number)
        elif number == _signal.SIGTSTP and not self.own_group:
            from prism_vault_agent.exec import stopping  # noqa: PLC0415 - few are ever stopped

            stopping.stop_by_terminal(number)

    def _signal_command(self, number: int) -> None:
        """Send a signal to the command, which is not reaped before its status is known, or to the first one when it comes."""
        if self.status is None:
            try:
                posix.kill(self.command, number)
            except PermissionError:
                return  # it runs as another user by now; directly, the sender could not have reached it either
        elif not self.command:
            self.starting.keep(number)

    def _reap(self) -> None:
        for pid, status in tree.reap():
            if pid != self.command:
                continue
            if posix.WIFSTOPPED(status):
                if self.stopped:
                    self._continued()  # for a moment: whoever waits for the supervisor must see it go on and stop again
                self.stopped = STOPPED + bytes([posix.WSTOPSIG(status)]) + pid.to_bytes(4, "little")
                tell(self.channel, self.stopped)
            elif posix.WIFCONTINUED(status):
                self._continued()
            else:
                self.status = status

    def _continued(self) -> None:
        self.stopped, self.waking = b"", True
        self.changes = (self.changes + 1) % 256
        tell(self.channel, CONTINUED + bytes([self.changes]))

    def _end_the_rest(self, status: int) -> None:
        """End what the command left: SIGTERM, then SIGKILL after the scope's grace; at once where the command was killed."""
        told: set[int] = set()
        continued: set[int] = set()
        if status == _signal.SIGKILL:
            self.deadline = 0.0
        elif self.deadline is None:
            self.deadline = time.monotonic() + self.grace
        while tree.children():
            if time.monotonic() >= self.deadline:
                tree.kill_all()
                break
            tree.signal_tree(_signal.SIGTERM, told)
            tree.signal_tree(_signal.SIGCONT, continued)  # who is stopped would not see it
            self._step()
        self.deadline = None
