"""The process between ``exec --supervise`` and the command: starts it, reaps its orphans, and ends all where we are killed.

It stays in the process group of the command and so sees what is sent to that group; the supervisor is in a group of its own.
"""

import _signal  # type: ignore[import-not-found]  # as in launch.py
import _socket
import posix
import select
import time

from prism_vault_agent.exec import INTERNAL, TEMPORARY, kernel, tree
from prism_vault_agent.exec.channel import AWAKE, ENDED, GO, GRACE, SENT, STOP, TERMS, WOKEN, Terms, hear, tell
from prism_vault_agent.exec.starting import Starting, give_terminal, join_group, leave_to_command, read_terms
from prism_vault_agent.exec.stops import NUDGE, Stops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

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
    """The state of this process. ``deadline``: when what is left is killed (CLOCK_MONOTONIC seconds), if that is known.

    ``held``: the command is not let go yet, and what it is sent is kept until then.
    """

    __slots__ = (
        "again", "channel", "command", "deadline", "grace", "held", "own_group", "poll", "signals", "starting", "status",
        "stops", "supervisor", "terms",
    )  # fmt: skip

    def __init__(self, channel: "_socket.socket", starting: Starting, *, again: bool, own_group: bool) -> None:
        """Adopt what will be orphaned; ``channel`` leads to the supervisor, whose end is heard of even where we are stopped."""
        self.channel = channel
        self.starting = starting
        self.again, self.own_group = again, own_group
        self.supervisor = posix.getppid()
        self.command, self.terms, self.held = 0, -1, False
        self.status: int | None = 0
        self.grace = GRACE
        self.deadline: float | None = None
        self.stops = Stops(channel, self.supervisor)
        self.signals = kernel.signal_descriptor()
        kernel.adopt_orphans()
        kernel.be_continued_at_end_of_parent()
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
                self._hear_command()
            self._end_the_rest(self.status)
            if self.stops.told:
                self.stops.continued()
            self.starting.early.clear()  # the supervisor knows of it, and so whether to start anew
            tell(self.channel, ENDED + self.status.to_bytes(4, "little"))
            if not self.again:
                break
        while self.stops.waking:
            self._step()  # until it has ended
        kernel.exit_now(0)

    def _start(self, how: bytes) -> None:
        terminal_of = (self.command or posix.getpgrp()) if self.own_group else 0
        self.deadline, self.stops.told = None, b""
        started = self.starting.start((self.channel.fileno(), self.signals), terminal_of, how)
        if started is None:
            self.status = TEMPORARY << 8
            return
        (self.command, self.terms), self.status, self.held = started, None, True
        self.poll.register(self.terms, select.POLLIN)
        kernel.set_name(_NAME)
        if not terminal_of:
            self._let_go()

    def _let_go(self) -> None:
        if self.own_group and self.again:
            join_group(self.command)  # who types Ctrl-C means all of it: we are to hear that
        self._signalled(kernel.read_signals(self.signals))
        self.starting.let_go(self.command, self.terms)
        self.held = False
        self._reap()  # the signal that told of its stop may be among those that were just read

    def _hear_command(self) -> None:
        """Let it go once it says that it has a group; then read what it says just before it is the command.

        Its descriptors are its own from then on where it is started only once.
        """
        if self.held and self.status is None and posix.read(self.terms, 1):
            self._let_go()
            return
        self.held = False
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
        dozing = self.stops.dozing()
        limit = None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0) * 1000 + 1
        if self.stops.waking:
            limit = 0 if dozing else NUDGE
        came = self.poll.poll(limit)
        if dozing and not came:
            self.stops.wake()
        told = b""
        for descriptor, _ in came:
            if descriptor == self.signals:
                self._signalled(kernel.read_signals(self.signals))
            elif descriptor == self.terms:
                self._hear_command()
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
            if self.status is None or self.again:
                self.stops.read(told[1])
        elif told[:1] == WOKEN:
            self._reap()
            if self.status is None:
                self.stops.asked(told[1])
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
            if each.number == _signal.SIGCONT and not (self.stops.told and tree.is_stopped(self.command)):
                self.stops.continued()  # the supervisor may have stopped because we were stopped
            if self.status is not None or self.held:
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
        if self.held or not self.command or number in _ENDING:
            self.starting.keep(number)
        elif number == _signal.SIGTSTP and not self.own_group:
            from prism_vault_agent.exec import stopping  # noqa: PLC0415 - few are ever stopped

            stopping.stop_by_terminal(number)

    def _signal_command(self, number: int) -> None:
        """Send a signal to the command, which is not reaped before its status is known, or to the first one when it comes.

        Also who is held is continued: else it would never say that it can be let go.
        """
        if self.status is None and (number == _signal.SIGCONT or not self.held):
            try:
                posix.kill(self.command, number)
            except PermissionError:
                return  # it runs as another user by now; directly, the sender could not have reached it either
        elif self.held or not self.command:
            self.starting.keep(number)

    def _reap(self) -> None:
        for pid, status in tree.reap():
            if pid != self.command:
                continue
            if posix.WIFSTOPPED(status):
                self.stops.stopped(pid, posix.WSTOPSIG(status))
            elif posix.WIFCONTINUED(status):
                self.stops.continued()
            else:
                self.status = status

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
