"""What ``exec --supervise`` does while the command runs: passes signals on, stops and goes on with it, learns how it ended."""

import _signal  # type: ignore[import-not-found]  # as in client.py
import _socket
import posix
import select

from prism_vault_agent.exec import INTERNAL, Failure, channel, kernel, report, tree


class Supervisor:
    """The process that the caller sees. Behind ``lifeline`` is the process ``watcher``; our signals are read from ``signals``."""

    __slots__ = ("lifeline", "poll", "signals", "watcher")

    def __init__(self, lifeline: _socket.socket, signals: int, watcher: int) -> None:
        """Follow what is below."""
        self.lifeline = lifeline
        self.signals = signals
        self.watcher = watcher
        self.poll = select.poll()
        self.poll.register(lifeline.fileno(), select.POLLIN)
        self.poll.register(signals, select.POLLIN)

    def run(self) -> int:
        """Have the command started, and do as it does until it has ended; return its status, as waitpid(2) has it."""
        channel.tell(self.lifeline, channel.GO)
        while True:
            for descriptor, _ in self.poll.poll():
                if descriptor == self.signals:
                    for each in kernel.read_signals(self.signals):
                        self._pass_on(each)
                    continue
                told = channel.hear(self.lifeline)
                if not told:
                    return _bereft()
                if told[:1] == channel.ENDED:
                    self.lifeline.close()
                    self._await()
                    return int.from_bytes(told[1:], "little")
                self._changed(told)

    def _changed(self, told: bytes) -> None:
        """Stop where the command has stopped, and say that we go on where it was continued."""
        if told[:1] == channel.CONTINUED:
            channel.tell(self.lifeline, channel.AWAKE + told[1:])
        elif tree.is_stopped(command := int.from_bytes(told[2:], "little")):
            could, _ = self._stop_beside(command, told[1])
            if not could:
                channel.tell(self.lifeline, bytes([_signal.SIGCONT]))

    def _pass_on(self, each: kernel.Signal) -> None:
        """Pass a signal on, unless it is meant for us: our child's changes, and that it wakes us."""
        if each.number == _signal.SIGCHLD and not each.sender:
            if self._lifeline_stopped() and tree.is_stopped(self.watcher):  # the whole group was, and the command with it
                _, alone = self._stop_beside(self.watcher, _signal.SIGSTOP)
                if alone:
                    posix.kill(self.watcher, _signal.SIGCONT)
        elif each.number != _signal.SIGCONT or each.sender != self.watcher:
            channel.tell(self.lifeline, bytes([each.number]))

    def _stop_beside(self, stopped: int, number: int) -> tuple[bool, bool]:
        from prism_vault_agent.exec import stopping  # noqa: PLC0415 - few are ever stopped

        return stopping.stop_beside(stopped, number, (self.lifeline.fileno(), self.signals))

    def _lifeline_stopped(self) -> bool:
        """Tell whether our child has stopped."""
        try:
            pid, status = posix.waitpid(self.watcher, posix.WNOHANG | posix.WUNTRACED)
        except ChildProcessError:
            return False  # its end was seen already
        return pid != 0 and posix.WIFSTOPPED(status)

    def _await(self) -> None:
        try:
            posix.waitpid(self.watcher, 0)
        except ChildProcessError:
            return  # its end was seen already


def _bereft() -> int:
    """End everything where the lifeline was ended by somebody: nobody would look after it any more. Return a status."""
    tree.kill_all()
    line = "the process that looks after the command was killed, so everything was ended; look for who did that"
    return report(Failure(INTERNAL, line), []) << 8
