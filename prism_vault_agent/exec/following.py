"""What ``exec --supervise`` does while the command runs: passes signals on, stops and goes on with it, starts it again."""

import _signal  # type: ignore[import-not-found]  # as in launch.py
import _socket
import posix
import select
import time

from prism_vault_agent.exec import AGENT_UNAVAILABLE, INTERNAL, TEMPORARY, Failure, channel, kernel, report, restarting, tree
from prism_vault_agent.exec.orders import Orders

# Who is sent one of these is asked to end; so is who waits and gets SIGHUP, which a service takes as an order to look again.
_ASKING = (_signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)
_LATER = (AGENT_UNAVAILABLE, TEMPORARY)


class Supervisor:
    """The process that the caller sees. Behind ``lifeline`` is the process ``watcher``; our signals are read from ``signals``.

    ``terms`` are those of the present start, once there are; ``release`` is its name, or that of the start before. ``asked`` is
    the signal by which it was last asked to end, else 0, and ``asked_at`` when. ``ordered``: it is being ended because the agent
    ordered to start it anew, or is not there and what the command has is ``over``. ``waiting``: it was said that the command
    cannot be started for now. ``bereft`` is the status without a lifeline, ``change`` the last one that it told.
    """

    __slots__ = (
        "again",
        "asked",
        "asked_at",
        "began",
        "bereft",
        "change",
        "lifeline",
        "ordered",
        "orders",
        "over",
        "poll",
        "release",
        "restarts",
        "running",
        "signals",
        "terms",
        "waiting",
        "watcher",
    )

    def __init__(
        self, lifeline: _socket.socket, signals: int, watcher: int, restarts: restarting.Restarts, agents: list[str]
    ) -> None:
        """Follow what is below; it is started again as ``restarts`` say, or the agent that listens on one of ``agents``."""
        self.lifeline = lifeline
        self.signals = signals
        self.watcher = watcher
        self.restarts = restarts
        self.again = restarts.policy != "no"
        self.terms: channel.Terms | None = None
        self.release = b""
        self.asked = 0
        self.asked_at = self.began = 0.0
        self.bereft = 0
        self.change = b"\0"
        self.running = self.ordered = self.over = self.waiting = False
        self.poll = select.poll()
        self.orders = Orders(agents, self.poll)
        self.poll.register(lifeline.fileno(), select.POLLIN)
        self.poll.register(signals, select.POLLIN)

    def run(self) -> int:
        """Have the command started, and do as it does until it has ended for good; return its status, as waitpid(2) has it."""
        for each in kernel.read_signals(self.signals):
            self._pass_on(each)  # before the command is started: the lifeline may have been sent the same, with our old group
        status, first = self._once(), True
        while (pause := self._pause(status, first=first)) is not None:
            if self._ends_within(pause):
                status = self.asked or status
                break
            status, first = self._once(), False
        self.lifeline.close()
        self._await()
        return self.bereft or status

    def _once(self) -> int:
        """Have the command started, and return the status of its end."""
        self.terms, self.running, self.ordered, self.over = None, True, False, False
        channel.tell(self.lifeline, channel.GO + (channel.QUIET if self.waiting else channel.ALOUD) + self.release)
        status = None
        while status is None:
            status = self._step(None)
        self.running = False
        self.orders.follow(b"")
        return AGENT_UNAVAILABLE << 8 if self.over and not self._was_asked(time.monotonic()) else status

    def _pause(self, status: int, *, first: bool) -> float | None:
        """Return how many seconds after this end the command is started again, None where it is not."""
        now, chance = time.monotonic(), posix.urandom(1)[0] / 255
        if not self.again or self.bereft or self._was_asked(now):
            return None
        if self.terms is None:
            if first or not posix.WIFEXITED(status) or posix.WEXITSTATUS(status) not in _LATER:
                return None
            if not self.waiting:
                report(Failure(0, "the command is started as soon as that is possible; until then nothing more is said"), [])
                self.waiting = True
            return self.restarts.until_started(chance)
        if self.ordered:
            return 0.0
        pause = self.restarts.after(status, now - self.began, now, chance)
        if self.restarts.gave_up:
            told = f"the command was started again {self.restarts.most} times within {self.restarts.within:.0f} s and has failed"
            report(Failure(0, f"{told}; it is left at that (--restart-limit)"), [])
        return pause

    def _was_asked(self, now: float) -> bool:
        """Tell whether the command ended because we were asked to: by SIGTERM at any time, by another signal within the grace.

        A command has its own use for Ctrl-C, and may end of something else much later.
        """
        grace = self.terms.grace if self.terms else channel.GRACE
        return self.asked == _signal.SIGTERM or (self.asked != 0 and now - self.asked_at <= grace)

    def _ends_within(self, seconds: float) -> bool:
        """Wait so long, without a command; tell whether we are asked to end meanwhile."""
        until = time.monotonic() + seconds
        self.asked = 0
        while not self.asked and not self.bereft:
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._step(left)
        return True

    def _step(self, limit: float | None) -> int | None:
        """Wait for news, so many seconds at most, and act on it; return the command's status where it has ended."""
        status = None
        limit = min((each for each in (limit, self.orders.left()) if each is not None), default=None)
        for descriptor, _ in self.poll.poll(None if limit is None else int(limit * 1000) + 1):
            if descriptor == self.signals:
                for each in kernel.read_signals(self.signals):
                    self._pass_on(each)
            elif descriptor == self.lifeline.fileno():
                status = self._told(channel.hear(self.lifeline))
            elif self.orders.ordered(descriptor):
                self._end()
        if self.orders.over() and not self.ordered:
            report(Failure(0, "no agent is there, and what the command was given has come to its end: it is ended"), [])
            self.over = True
            self._end()
        self.orders.connect()
        return status

    def _end(self) -> None:
        """Have the command ended within its grace, to be started anew where it is ever started again."""
        if not self.ordered:
            self.ordered = True
            self.asked = 0 if self.asked != _signal.SIGTERM else self.asked
            channel.tell(self.lifeline, channel.STOP)

    def _told(self, told: bytes) -> int | None:
        """Act on what the lifeline tells: its end, how the command ended, or that it stopped, and went on, and so on."""
        kind, what = told[:1], told[1:]
        if not kind:
            return self._bereft()
        if kind == channel.ENDED:
            return int.from_bytes(what, "little")
        if kind == channel.TERMS:
            self.terms = channel.Terms(what)
            self.began, self.waiting = time.monotonic(), False
            self.release = self.terms.id
            self.restarts.started()
            if self.terms.orders:
                self.again = True
            if self.terms.orders or self.terms.ends is not None:
                self.orders.follow(self.release, self.terms.ends)
        elif kind == channel.SENT:
            self.asked, self.asked_at = what[0], time.monotonic()
        elif kind == channel.CONTINUED:
            self.change = what
            channel.tell(self.lifeline, channel.AWAKE + what)
        else:
            self._stop(what[0], int.from_bytes(what[1:], "little"))
        return None

    def _stop(self, number: int, command: int) -> None:
        """Stop as the command has, by this signal, unless it has gone on since."""
        if not tree.is_stopped(command):
            return
        could, alone = self._stop_beside(command, number)
        if not could:
            channel.tell(self.lifeline, bytes([_signal.SIGCONT]))
        elif not alone:
            self._ask()

    def _ask(self) -> None:
        """Ask whether the command is stopped all the same: we were woken because it ran, or was thought to.

        To stop again without that would be too soon: the lifeline, which has yet to tell what has happened, would wake us once
        more, and a shell that sees that takes for running what is stopped, and does not continue it.
        """
        channel.tell(self.lifeline, channel.WOKEN + self.change)

    def _pass_on(self, each: kernel.Signal) -> None:
        """Pass a signal on, unless it is meant for us: our child's changes, its waking us, an agent, an end without a command."""
        if each.number == _signal.SIGCHLD and not each.sender:
            if number := self._lifeline_stopped_by():
                self._stop_with_group(number)
        elif each.number == _signal.SIGIO and not each.sender and self.orders.came():
            return
        elif each.number == _signal.SIGCONT and each.sender == self.watcher:
            self._ask()
        else:
            if each.number in _ASKING or (each.number == _signal.SIGHUP and not self.running):
                self.asked, self.asked_at = each.number, time.monotonic()
            channel.tell(self.lifeline, bytes([each.number]))

    def _stop_with_group(self, number: int) -> None:
        """Stop by this signal as the whole group has, the command too, until it goes on, or we are continued and it with us."""
        while tree.is_stopped(self.watcher):
            _, alone = self._stop_beside(self.watcher, number)
            if alone:
                posix.kill(self.watcher, _signal.SIGCONT)
                return

    def _stop_beside(self, stopped: int, number: int) -> tuple[bool, bool]:
        from prism_vault_agent.exec import stopping  # noqa: PLC0415 - few are ever stopped

        return stopping.stop_beside(stopped, number, (self.lifeline.fileno(), self.signals))

    def _lifeline_stopped_by(self) -> int:
        """Return the signal that our child has stopped by, 0 where it has not."""
        try:
            pid, status = posix.waitpid(self.watcher, posix.WNOHANG | posix.WUNTRACED)
        except ChildProcessError:
            return 0  # its end was seen already
        return posix.WSTOPSIG(status) if pid and posix.WIFSTOPPED(status) else 0

    def _await(self) -> None:
        try:
            posix.waitpid(self.watcher, 0)
        except ChildProcessError:
            return  # its end was seen already

    def _bereft(self) -> int:
        """End everything where the lifeline was ended by somebody: nobody would look after it any more. Return a status."""
        tree.kill_all()
        line = "the process that looks after the command was killed, so everything was ended; look for who did that"
        self.bereft = report(Failure(INTERNAL, line), []) << 8
        return self.bereft
