"""Where a command writes whose output is masked: pipes, or terminals that are like the real ones."""

import fcntl
import posix
import termios

from prism_vault_agent.exec import STANDARD_ERROR, STANDARD_OUTPUT

PIECE = 1 << 20  # bytes that are read at a time, and that a pipe takes
_OUTPUT = (STANDARD_OUTPUT, STANDARD_ERROR)
_OUTPUT_FLAGS = 1  # its place in what tcgetattr returns, see termios(3)
_SIZE = 8  # bytes of struct winsize


class Output:
    """Where the command writes instead of ``places``, our standard output, error or both; ``reading`` is our end of it."""

    __slots__ = ("places", "reading", "terminal", "writing")

    def __init__(self, places: list[int], *, terminal: bool) -> None:
        """Make a pipe, or a terminal that is like the one that is there, but changes nothing of what it is given."""
        self.places = places
        self.terminal = terminal
        if not terminal:
            self.reading, self.writing = posix.pipe()
            fcntl.fcntl(self.reading, fcntl.F_SETPIPE_SZ, PIECE)
            return
        self.reading, self.writing = posix.openpty()
        mode = termios.tcgetattr(places[0])
        mode[_OUTPUT_FLAGS] &= ~termios.OPOST
        termios.tcsetattr(self.writing, termios.TCSANOW, mode)
        self.resize()

    def resize(self) -> bool:
        """Give the command's terminal the size of the real one; tell whether it was another."""
        size = fcntl.ioctl(self.places[0], termios.TIOCGWINSZ, bytes(_SIZE))
        if fcntl.ioctl(self.reading, termios.TIOCGWINSZ, bytes(_SIZE)) == size:
            return False
        fcntl.ioctl(self.reading, termios.TIOCSWINSZ, size)
        return True


def outputs(closed: list[int]) -> list[Output]:
    """Return one output for standard output and error where both are the same file or terminal, else one for each.

    None takes the place of those that the caller had ``closed``: they stay so.
    """
    there = {place: posix.fstat(place) for place in _OUTPUT if place not in closed}
    both = len(there) == len(_OUTPUT) and len({(each.st_dev, each.st_ino) for each in there.values()}) == 1
    groups = [list(_OUTPUT)] if both else [[place] for place in there]
    return [Output(group, terminal=posix.isatty(group[0])) for group in groups]
