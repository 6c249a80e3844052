"""Stopping as what is below ``exec --supervise`` has stopped, so that a shell sees a stopped job. Loaded by the few that are."""

import _signal  # type: ignore[import-not-found]  # as in launch.py
import posix

from prism_vault_agent.exec import tree
from prism_vault_agent.exec.alarm import Alarm

BY_TERMINAL = (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)


def stop_beside(stopped: int, number: int, descriptors: tuple[int, ...]) -> tuple[bool, bool]:
    """Stop by this signal as a process below us has, until it runs or somebody continues us.

    Return whether the kernel stopped us, and whether it was us that were continued, whatever that process does. Where it was
    not, that process has run, or may have, and may have stopped since.
    """
    alarm = Alarm(stopped, tree.switches(stopped), descriptors)
    # Once more, as late as can be: a shell that sees us stop takes the terminal from a job that it has just let go on.
    still = tree.is_stopped(stopped)
    could = not still or _stop(number)
    return could, not alarm.rang() and still


def _stop(number: int) -> bool:
    """Stop by this signal until somebody continues us. Return False where the kernel stops no orphaned group (setpgid(2))."""
    if number in BY_TERMINAL:
        if stop_by_terminal(number):
            return True
        if number == _signal.SIGTSTP:
            return False
    posix.kill(posix.getpid(), _signal.SIGSTOP)
    return True


def stop_by_terminal(number: int) -> bool:
    """Stop by a signal that the kernel may refuse to stop by; tell whether we were stopped and have been continued."""
    posix.kill(posix.getpid(), number)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {number})
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {number})
    return _signal.SIGCONT in _signal.sigpending()
