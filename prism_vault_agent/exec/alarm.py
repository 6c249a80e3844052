"""While ``exec --supervise`` is stopped as the command is: a child outside of the command's group, which wakes it.

Whoever lets that group go on does not mean the supervisor, who has left it. The lifeline wakes it else, but is in the group:
where that is stopped anew at once, the lifeline is too, and a stop takes away the SIGCONT that it has not read yet. The caller
would wait for ever for a stop that it has seen already.
"""

import _signal  # type: ignore[import-not-found]  # as in launch.py
import posix
import select

from prism_vault_agent.exec import kernel, tree

LOOK = 10  # milliseconds


class Alarm:
    """Wakes this process as soon as the process ``watched``, which is stopped, has run. Ask :meth:`rang` when awake again."""

    __slots__ = ("_child", "_reading")

    def __init__(self, watched: int, before: int, unneeded: tuple[int, ...]) -> None:
        """Begin to look; ``before`` is what ``tree.switches`` says of it.

        ``unneeded`` are descriptors that the looking process is not to keep open.
        """
        supervisor = posix.getpid()
        self._reading, writing = posix.pipe()
        try:
            self._child = posix.fork()
        except OSError:
            self._child = -1  # there is no process to be had: the lifeline wakes us, if later
        if self._child == 0:
            try:
                for descriptor in (*unneeded, self._reading):
                    posix.close(descriptor)
                _look(supervisor, watched, before, writing)
            finally:
                kernel.exit_now(0)
        posix.close(writing)

    def rang(self) -> bool:
        """End it, and tell whether it was this that woke us."""
        if self._child > 0:
            posix.kill(self._child, _signal.SIGKILL)
            posix.waitpid(self._child, 0)
        rang = bool(posix.read(self._reading, 1))
        posix.close(self._reading)
        if rang:
            _signal.sigtimedwait({_signal.SIGCONT}, 0)  # its own: not for the command, which may be stopped anew
        return rang


def _look(supervisor: int, watched: int, before: int, writing: int) -> None:
    """Wake the supervisor again and again until it ends us: at first it may not be stopped yet."""
    rung = False
    while posix.getppid() == supervisor:
        if not tree.is_stopped(watched) or tree.switches(watched) != before:
            if not rung:
                posix.write(writing, b"!")
                rung = True
            posix.kill(supervisor, _signal.SIGCONT)
        select.poll().poll(LOOK)
