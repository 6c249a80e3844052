"""What is typed while a command is being started means it, as it would mean one that is started directly."""

from __future__ import annotations

import os
import shlex
import signal
import time

from tests.supervise.supervised import Marked, children, start, status_of, stopped, words
from tests.supervise.test_signals import OWN_SESSION
from tests.supervise.test_terminal import BOTH, PROMPT, shell
from tests.support.soak import count
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

LONGEST = 0.12  # seconds in which each of them is started


def ours(pid: int) -> bool:
    """Tell whether a process has come to our code: before, Ctrl-C is the interpreter's own, and it may show a traceback."""
    interpreted = (
        int(status_of(pid, "SigIgn"), 16) & 1 << signal.SIGPIPE - 1
        and not int(status_of(pid, "SigCgt"), 16) & 1 << signal.SIGINT - 1
    )
    return bool(interpreted) or status_of(pid, "Name") in ("sleep", "sh")


def begin(terminal: Terminal, command: list[str], share: float) -> None:
    """Start a program from the shell, and return at some moment of its start: a ``share`` of the longest one."""
    prompting = terminal.foreground()
    terminal.type(shlex.join(command).encode() + b"\n")
    wait_until(lambda: (started := terminal.foreground()) != prompting and ours(started))
    wait_until_moment(share)


def wait_until_moment(share: float) -> None:
    """Wait for a ``share`` of the longest start."""
    moment = time.monotonic() + share * LONGEST
    wait_until(lambda: time.monotonic() >= moment)


@BOTH
def test_ctrl_c(agent, options):
    """Ctrl-C ends it at any moment of its start, without a word."""
    rounds = count(12, 120)
    with shell(Marked()) as terminal:
        for turn in range(rounds):
            begin(terminal, words(agent, "sleep", "600", options=options), turn / rounds)
            terminal.type(b"\x03")
            assert b"prism-vault: " not in (said := terminal.expect(PROMPT)) and b"Traceback" not in said
            terminal.type(b"echo $?\n")
            terminal.expect(b"130\r\n" + PROMPT)


@BOTH
def test_ctrl_z_and_fg(agent, options):
    """Ctrl-Z stops it at any moment of its start; continued, it is started as if nothing had been."""
    rounds = count(12, 120)
    with shell(Marked()) as terminal:
        for turn in range(rounds):
            begin(terminal, words(agent, "sh", "-c", "read line; exit 7", options=options), turn / rounds)
            terminal.type(b"\x1a")
            terminal.expect(b"Stopped")
            terminal.expect(PROMPT)
            prompting = terminal.foreground()
            terminal.type(b"fg\n")
            wait_until(lambda: terminal.foreground() != prompting)  # noqa: B023 - of this turn
            terminal.type(b"typed\n")
            terminal.expect(PROMPT)
            terminal.type(b"echo $?\n")
            terminal.expect(b"7\r\n" + PROMPT)


@BOTH
@OWN_SESSION
def test_a_signal_to_the_supervisor(agent, options, own_session):
    """SIGTERM at any moment of its start ends it by that, also one that leads a session: its command gets an own group."""
    rounds = count(8, 120)
    for turn in range(rounds):
        with start(agent, "sleep", "600", options=options, start_new_session=own_session) as process:
            wait_until(lambda: ours(process.pid))
            wait_until_moment(turn / rounds)
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM


def first_process(supervisor: int) -> int:
    """Return the process that is to become the command as soon as there is one: it is let go in a millisecond."""
    command = 0
    while not command:
        command = next((below for pid in children(supervisor) for below in children(pid)), 0)
    return command


@OWN_SESSION
def test_killed_while_that_process_is_stopped(agent, own_session):
    """A supervisor that is killed then leaves nothing either."""
    for _ in range(count(6, 60)):
        marked = Marked()
        with start(agent, "sleep", "600", env=marked.env, start_new_session=own_session) as process:
            os.kill(first_process(process.pid), signal.SIGSTOP)
            process.kill()
            process.wait(30)
            marked.wait_gone()


@OWN_SESSION
def test_stopped_as_soon_as_there_is_a_process(agent, own_session):
    """A process that is stopped before it has become the command stops the supervisor, and both go on."""
    for _ in range(count(12, 120)):
        with start(agent, "sleep", "600", start_new_session=own_session) as process:
            command = first_process(process.pid)
            os.kill(command, signal.SIGSTOP)
            wait_until(lambda: stopped(process.pid))
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: not stopped(command) and status_of(command, "Name") == "sleep")  # noqa: B023 - of this turn
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM


def test_ctrl_z_between_two_starts(agent):
    """Ctrl-Z stops a supervisor that has nothing running; continued, it starts the command when it is due."""
    with shell(Marked()) as terminal:
        prompting, before = terminal.foreground(), len(agent.requests)
        command = words(agent, "false", options=("--restart", "always", "--restart-limit", "100/1m"))
        terminal.type(shlex.join(command).encode() + b"\n")
        wait_until(lambda: len(agent.requests) >= before + 3)  # pauses have become a second long by then
        supervisor = terminal.foreground()
        (lifeline,) = children(supervisor)
        wait_until(lambda: not children(lifeline))
        for _ in range(2):
            terminal.type(b"\x1a")
            terminal.expect(b"Stopped ")
            terminal.expect(PROMPT)
            assert stopped(supervisor)
            asked = len(agent.requests)
            terminal.type(b"fg\n")
            wait_until(lambda: terminal.foreground() != prompting)
            wait_until(lambda: len(agent.requests) > asked)  # noqa: B023 - of this turn
            wait_until(lambda: not children(lifeline))
        terminal.type(b"\x03")
        terminal.expect(PROMPT)
        terminal.type(b"echo $?\n")
        terminal.expect(b"130\r\n" + PROMPT)
