"""``exec --supervise``: stay, as its parent's parent, while a child asks the agent and becomes the command.

Three processes, told in ``docs/adr/0059-supervision.md``. This one is what the caller sees: signals that are sent to it are
passed on, it stops and goes on with the command, and it ends as the command did. Below it is the lifeline (``lifeline.py``),
below that the command. None but the last ever holds a value.
"""

import _signal  # type: ignore[import-not-found]  # as in client.py
import _socket
import posix
import select

from prism_vault_agent.exec import INTERNAL, Failure, kernel, lifeline, tree
from prism_vault_agent.exec.client import report
from prism_vault_agent.exec.launch import no_core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.exec.arguments import ExecOptions
    from prism_vault_agent.exec.masker import Masker

_STANDARD_ERROR = 2
_BY_TERMINAL = (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)
# Ignored, these would keep us from seeing a child end and from stopping; the command gets them as they were.
_NEEDED = (_signal.SIGCHLD, *_BY_TERMINAL)


class Inherited:
    """What the caller gave us of signals: which are blocked, and which of those that we need are ignored."""

    __slots__ = ("ignored", "mask")

    def __init__(self) -> None:
        """Block every signal, so that none is lost from now on, and keep how it was."""
        self.mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, kernel.CATCHABLE)
        self.ignored = [number for number in _NEEDED if _signal.getsignal(number) is _signal.SIG_IGN]
        for number in self.ignored:
            _signal.signal(number, _signal.SIG_DFL)

    def restore(self) -> None:
        """Make it as it was, in the process that becomes the command."""
        for number in self.ignored:
            _signal.signal(number, _signal.SIG_IGN)
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.mask)


def run(options: "ExecOptions", become: "Callable[[], int]") -> int:
    """Supervise the process that ``become`` turns into the command; it returns the exit status where it does not.

    Return the command's exit status. Where a signal ended the command, this process ends by it too; 128 and its number are
    returned where the kernel does not allow that, as for the first process of a container.
    """
    inherited = Inherited()
    _fill_standard_descriptors()
    signals = kernel.signal_descriptor()
    kernel.adopt_orphans()
    masker = _masker() if options.mask_output else None
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    leads_session = posix.getsid(0) == posix.getpid()
    watcher = posix.fork()
    if watcher == 0:
        ours.close()

        def prepare() -> None:
            if masker is not None:
                masker.take_output()
                options.values_to = masker.values
            inherited.restore()

        lifeline.watch(theirs, become, prepare, own_group=leads_session)
    theirs.close()
    if not leads_session:
        _leave_group()
    lifeline.leave_to_command({ours.fileno(), signals, _STANDARD_ERROR})
    lifeline.tell(ours, lifeline.GO)
    try:
        status = _follow(ours, signals, watcher)
        if masker is not None and masker.status():
            return report(Failure(INTERNAL, "the process that masks the output was ended; part of the output is lost"), [])
        return _end_as(status)
    except Exception as error:  # noqa: BLE001 - as in client.py; the lifeline ends everything when we are gone
        return report(Failure(INTERNAL, f"a defect in exec ({type(error).__name__}); please report it"), [])


def _masker() -> "Masker":
    from prism_vault_agent.exec.masker import Masker  # noqa: PLC0415 - only who masks pays for it

    return Masker()


def _fill_standard_descriptors() -> None:
    """Keep what we open out of the places of standard descriptors that the caller has closed."""
    descriptor = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    while descriptor <= _STANDARD_ERROR:
        descriptor = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    posix.close(descriptor)


def _leave_group() -> None:
    """Leave our process group to the command, so that what is sent to the group reaches it once and not through us.

    Who leads a group cannot make another one, but may join one: that of a child which waits until we have.
    """
    if posix.getpgrp() != posix.getpid():
        posix.setpgid(0, 0)
        return
    reading, writing = posix.pipe()
    host = posix.fork()
    if host == 0:
        posix.close(writing)
        posix.read(reading, 1)
        kernel.exit_now(0)
    posix.setpgid(host, host)
    posix.setpgid(0, host)
    posix.close(reading)
    posix.close(writing)
    posix.waitpid(host, 0)


def _follow(channel: "_socket.socket", signals: int, watcher: int) -> int:
    """Pass signals on and do as the command does, until it has ended; return its status, as waitpid(2) has it."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    poll.register(signals, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == signals:
                for each in kernel.read_signals(signals):
                    _pass_on(each, channel, signals, watcher)
                continue
            told = lifeline.hear(channel)
            if not told:
                return _bereft()
            if told[:1] == lifeline.ENDED:
                channel.close()
                _await(watcher)
                return int.from_bytes(told[1:], "little")
            if told[:1] == lifeline.CONTINUED:
                lifeline.tell(channel, lifeline.AWAKE + told[1:])
            elif tree.is_stopped(command := int.from_bytes(told[2:], "little")):
                could, _ = _stop_beside(command, told[1], (channel.fileno(), signals))
                if not could:
                    lifeline.tell(channel, bytes([_signal.SIGCONT]))


def _pass_on(each: kernel.Signal, channel: "_socket.socket", signals: int, watcher: int) -> None:
    """Pass a signal on, unless it is meant for us: our child's changes, and that it wakes us."""
    if each.number == _signal.SIGCHLD and not each.sender:
        if _is_stopped(watcher) and tree.is_stopped(watcher):  # the whole group was, and the command with it
            _, alone = _stop_beside(watcher, _signal.SIGSTOP, (channel.fileno(), signals))
            if alone:
                posix.kill(watcher, _signal.SIGCONT)
    elif each.number != _signal.SIGCONT or each.sender != watcher:
        lifeline.tell(channel, bytes([each.number]))


def _stop_beside(stopped: int, number: int, descriptors: tuple[int, ...]) -> tuple[bool, bool]:
    """Stop by this signal as a process below us has, until it runs or somebody continues us.

    Return whether the kernel stopped us, and whether it was us that were continued, whatever that process does.
    """
    from prism_vault_agent.exec.alarm import Alarm  # noqa: PLC0415 - few are ever stopped

    while True:
        alarm = Alarm(stopped, tree.switches(stopped), descriptors)
        could = _stop(number)
        if not alarm.rang():
            return could, True
        if not tree.is_stopped(stopped):
            return could, False


def _is_stopped(child: int) -> bool:
    """Tell whether our child has stopped."""
    try:
        pid, status = posix.waitpid(child, posix.WNOHANG | posix.WUNTRACED)
    except ChildProcessError:
        return False  # its end was seen already
    return pid != 0 and posix.WIFSTOPPED(status)


def _await(child: int) -> None:
    try:
        posix.waitpid(child, 0)
    except ChildProcessError:
        return  # its end was seen already


def _stop(number: int) -> bool:
    """Stop by this signal until somebody continues us. Return False where the kernel stops no orphaned group (setpgid(2))."""
    if number in _BY_TERMINAL:
        if _stopped_by(number):
            return True
        if number == _signal.SIGTSTP:
            return False
    posix.kill(posix.getpid(), _signal.SIGSTOP)
    return True


def _stopped_by(number: int) -> bool:
    """Stop by a signal that may be refused; tell whether we were stopped and have been continued."""
    posix.kill(posix.getpid(), number)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {number})
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {number})
    return _signal.SIGCONT in _signal.sigpending()


def _end_as(status: int) -> int:
    """End as the command did, whose ``status`` is that of waitpid(2)."""
    if not posix.WIFSIGNALED(status):
        return posix.WEXITSTATUS(status)
    number = posix.WTERMSIG(status)
    no_core()
    if number != _signal.SIGKILL:
        _signal.signal(number, _signal.SIG_DFL)
    posix.kill(posix.getpid(), number)
    if number != _signal.SIGKILL:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {number})
    return 128 + number


def _bereft() -> int:
    """End everything where the lifeline was ended by somebody: nobody would look after it any more. Return a status."""
    tree.kill_all()
    line = "the process that looks after the command was killed, so everything was ended; look for who did that"
    return report(Failure(INTERNAL, line), []) << 8
