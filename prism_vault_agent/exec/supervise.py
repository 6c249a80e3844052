"""``exec --supervise``: stay, as its parent's parent, while a child asks the agent and becomes the command.

Three processes, told in ``docs/adr/0059-supervision.md``. This one is what the caller sees: signals that are sent to it are
passed on, it stops and goes on with the command, and it ends as the command did. Below it is the lifeline (``lifeline.py``),
below that the command. None but the last ever holds a value.
"""

import _signal  # type: ignore[import-not-found]  # as in launch.py
import _socket
import posix

from prism_vault_agent.exec import INTERNAL, STANDARD_ERROR, Failure, defect, kernel, lifeline, report
from prism_vault_agent.exec.channel import QUIET
from prism_vault_agent.exec.connection import sockets
from prism_vault_agent.exec.following import Supervisor
from prism_vault_agent.exec.launch import no_core, own_variables
from prism_vault_agent.exec.restarting import Restarts
from prism_vault_agent.exec.starting import Starting, leave_to_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.exec.arguments import ExecOptions
    from prism_vault_agent.exec.masker import Masker

# Ignored, these would keep us from seeing a child end and from stopping; the command gets them as they were.
_NEEDED = (_signal.SIGCHLD, _signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)


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
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # with --direct, by the command line proper
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.mask)


def run(options: "ExecOptions", become: "Callable[[float], int]") -> int:
    """Supervise the process that ``become`` turns into the command; it returns the exit status where it does not.

    Return the command's exit status. Where a signal ended the command, this process ends by it too; 128 and its number are
    returned where the kernel does not allow that, as for the first process of a container.
    """
    inherited = Inherited()
    paths = [] if options.direct else _agents(options)
    closed = _fill_standard_descriptors()
    signals = kernel.signal_descriptor()
    kernel.adopt_orphans()
    masker = _masker(closed) if options.mask_output else None
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    leads_session = posix.getsid(0) == posix.getpid()
    watcher = posix.fork()
    if watcher == 0:
        ours.close()

        def prepare(terms: int, how: bytes) -> None:
            options.terms_to, options.quiet, options.after = terms, how[:1] == QUIET, how[1:].decode()
            if masker is not None:
                masker.take_output()
                options.values_to = masker.values
            inherited.restore()

        starting = Starting(become, prepare)
        lifeline.watch(theirs, starting, again=options.restart != "no", own_group=leads_session)
    theirs.close()
    if not leads_session:
        _leave_group()
    leave_to_command({ours.fileno(), signals, STANDARD_ERROR})
    try:
        status = Supervisor(ours, signals, watcher, Restarts(options.restart, *options.restart_limit), paths).run()
        if masker is not None and masker.status():
            return report(Failure(INTERNAL, "the process that masks the output was ended; part of the output is lost"), [])
        return _end_as(status)
    except Exception as error:  # noqa: BLE001 - as in client.py; the lifeline ends everything when we are gone
        return defect(error, [])


def _agents(options: "ExecOptions") -> list[str]:
    """Return where the agent may listen, good in any working directory."""
    own = own_variables()
    named = options.socket or own.get(b"PRISM_VAULT_SOCKET", b"").decode("utf-8", "surrogateescape")
    try:
        here = posix.getcwd()
    except OSError:
        here = ""  # it was removed, so what is named from there is not there either
    return [path if path.startswith("/") else f"{here}/{path}" for path in sockets(named, own, posix.geteuid())]


def _masker(closed: list[int]) -> "Masker":
    from prism_vault_agent.exec.masker import Masker  # noqa: PLC0415 - only who masks pays for it

    return Masker(closed)


def _fill_standard_descriptors() -> list[int]:
    """Keep what we open out of the places of standard descriptors that the caller has closed; return these."""
    closed = []
    descriptor = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    while descriptor <= STANDARD_ERROR:
        closed.append(descriptor)
        descriptor = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    posix.close(descriptor)
    return closed


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
