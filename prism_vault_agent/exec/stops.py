"""What the lifeline tells the supervisor of the command's stops, and how it wakes it: a shell sees it stop and go on alike."""

import _signal  # type: ignore[import-not-found]  # as in launch.py
import posix

from prism_vault_agent.exec import tree
from prism_vault_agent.exec.channel import CONTINUED, STOPPED, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

NUDGE = 5  # milliseconds between two tries to wake the supervisor


class Stops:
    """Whether the command is stopped. ``told``: how the ``supervisor`` was told that it is, nothing while it runs.

    ``waking``: the supervisor is to be continued wherever it is stopped. It is, until it says that it has read the last of our
    ``changes``: it may be about to stop, and not have done so yet.
    """

    __slots__ = ("changes", "channel", "supervisor", "told", "waking")

    def __init__(self, channel: "_socket.socket", supervisor: int) -> None:
        """Tell the process ``supervisor`` on ``channel``."""
        self.channel = channel
        self.supervisor = supervisor
        self.changes = 0
        self.told, self.waking = b"", False

    def stopped(self, command: int, number: int) -> None:
        """Tell that the command has stopped by this signal."""
        if self.told:
            self.continued()  # for a moment: whoever waits for the supervisor must see it go on and stop again
        self.told = STOPPED + bytes([number]) + command.to_bytes(4, "little")
        tell(self.channel, self.told)

    def continued(self) -> None:
        """Tell that the command goes on, and wake the supervisor."""
        self.told, self.waking = b"", True
        self.changes = (self.changes + 1) % 256
        tell(self.channel, CONTINUED + bytes([self.changes]))

    def read(self, change: int) -> None:
        """Wake the supervisor no more where it has read the last change."""
        if change == self.changes:
            self.waking = False

    def asked(self, change: int) -> None:
        """Tell the supervisor again that the command is stopped, where it is and the last change has been read."""
        if self.told and change == self.changes:
            tell(self.channel, self.told)

    def dozing(self) -> bool:
        """Tell whether the supervisor is to be woken and is stopped.

        Only where it is stopped: a SIGCONT takes away a SIGTSTP that has come and is not read yet. And :meth:`wake` only where it
        has said nothing before it was found so: it may have read what we told, and then have stopped anew.
        """
        return self.waking and posix.getppid() == self.supervisor and tree.is_stopped(self.supervisor)

    def wake(self) -> None:
        """Continue the supervisor, our parent, which :meth:`dozing` has found stopped."""
        posix.kill(self.supervisor, _signal.SIGCONT)
