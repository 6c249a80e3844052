"""When a command that has ended is started again, and after how long. Pure: the time and chance are told."""

import _signal  # type: ignore[import-not-found]  # as in launch.py
import posix

FIRST = 0.5  # seconds before the first of several restarts in a row; each further pause is twice as long
LONGEST = 60.0
JITTER = 0.25  # of a pause, at most, more or less
# As a service manager sees it: who was asked to end, or has nobody to write to, has not failed.
_CLEAN = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGPIPE)


class Restarts:
    """The restarts of one command. ``gave_up`` tells whether there were more than ``most`` of them in ``within`` seconds."""

    __slots__ = ("attempts", "gave_up", "most", "pause", "policy", "times", "within")

    def __init__(self, policy: str, most: int, within: float) -> None:
        """Begin; ``policy`` is ``no``, ``on-failure`` or ``always``."""
        self.policy = policy
        self.most = most
        self.within = within
        self.pause = FIRST
        self.times: list[float] = []
        self.attempts = 0
        self.gave_up = False

    def after(self, status: int, ran: float, now: float, chance: float) -> float | None:
        """Return the pause in seconds before the command is started again, None where it is not.

        It ended with ``status`` (of waitpid(2)) after it ``ran`` so many seconds; ``chance`` is from 0 to 1. One that ran as long
        as restarts are counted is taken to work: the pause begins anew.
        """
        if self.policy == "no" or (self.policy == "on-failure" and not failed(status)):
            return None
        self.times = [each for each in self.times if now - each < self.within]
        if len(self.times) >= self.most:
            self.gave_up = True
            return None
        self.times.append(now)
        if ran >= self.within:
            self.pause = FIRST
        pause, self.pause = self.pause, min(self.pause * 2, LONGEST)
        return jittered(pause, chance)

    def started(self) -> None:
        """Take note that it was started."""
        self.attempts = 0

    def until_started(self, chance: float) -> float:
        """Return the pause in seconds before what could not be started for now is tried again."""
        self.attempts += 1
        return jittered(min(FIRST * 2 ** min(self.attempts - 1, 10), LONGEST / 2), chance)


def failed(status: int) -> bool:
    """Tell whether a ``status`` of waitpid(2) is that of a failure: not 0, and not a signal that asks to end."""
    return posix.WTERMSIG(status) not in _CLEAN if posix.WIFSIGNALED(status) else status != 0


def jittered(pause: float, chance: float) -> float:
    """Return about ``pause``: what fails together is not started together."""
    return pause * (1 - JITTER + 2 * JITTER * chance)
