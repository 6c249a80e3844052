"""A supervisor that is killed leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import termios
import time
from typing import IO

import pytest

from tests.supervise.supervised import PYTHON, Marked, children, start, stopped, words
from tests.support.child import Child
from tests.support.soak import count
from tests.support.waiting import wait_until

# The command, with four children in its session and five daemons: ten processes, and each of them ignores what it can.
STUBBORN = (
    "import _signal, posix, time\n"
    "for n in range(1, 65):\n"
    "    if n not in (9, 19, 32, 33): _signal.signal(n, _signal.SIG_IGN)\n"
    "for n in range(9):\n"
    "    if posix.fork() == 0:\n"
    "        if n % 2 == 0:\n"
    "            posix.setsid()\n"
    "            if posix.fork(): posix._exit(0)\n"
    "        break\n"
    "posix.write(1, b'.')\n"
    "time.sleep(600)\n"
)
PROCESSES = 10


def test_no_survivor(agent):
    """After SIGKILL to the supervisor nothing of its tree is left: children, daemons, whatever they ignore."""
    slowest, survivors, rounds = 0.0, 0, count(4, 33)
    for _ in range(rounds):
        marked = Marked()
        with start(agent, *PYTHON, STUBBORN, env=marked.env) as process:
            assert process.stdout is not None
            assert len(process.stdout.read(PROCESSES)) == PROCESSES
            # With the lifeline, and without those between a daemon and its grandparent, which end at once.
            wait_until(lambda: len(marked.alive()) == PROCESSES + 2)  # noqa: B023 - of this turn
            pids = set(marked.alive()) - {process.pid}
            ends = [os.pidfd_open(pid) for pid in pids]
            begun = time.monotonic()
            process.kill()
            for end in ends:
                assert select.select([end], [], [], 10)[0]
                os.close(end)
            slowest = max(slowest, time.monotonic() - begun)
            process.wait(30)
            survivors += len(marked.alive())
    print(
        f"{rounds} supervisors killed over {rounds * PROCESSES} processes: survivors {survivors}, slowest {slowest * 1000:.1f} ms"
    )
    assert survivors == 0


def test_killed_while_the_command_starts(agent):
    """Also a supervisor that is killed at any moment of its start leaves nothing."""
    for turn in range(count(10, 100)):
        marked = Marked()
        with start(agent, "sleep", "600", env=marked.env) as process:
            deadline = time.monotonic() + turn % 10 * 0.01
            wait_until(lambda: time.monotonic() > deadline)  # noqa: B023 - of this turn
            process.kill()
            process.wait(30)
            marked.wait_gone()


def test_killed_while_all_is_stopped(agent):
    """A tree that is stopped is ended too."""
    marked = Marked()
    with start(agent, *PYTHON, STUBBORN, env=marked.env, process_group=0) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(PROCESSES)) == PROCESSES
        os.killpg(process.pid, signal.SIGSTOP)
        process.kill()
        process.wait(30)
        marked.wait_gone()


def test_killed_while_nobody_reads_what_is_masked(agent):
    """The process that masks has the values, so it does not wait for ever either for who reads its output."""
    marked = Marked()
    with start(agent, "yes", options=("--mask-output",), env=marked.env) as process:
        output = process.stdout
        assert output is not None
        room = fcntl.fcntl(output, fcntl.F_GETPIPE_SZ)
        wait_until(lambda: waiting(output) == room)
        process.kill()
        process.wait(30)
        marked.wait_gone()


def waiting(pipe: IO[bytes]) -> int:
    """Return how many bytes nobody has read of a pipe yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


# Starts what it is given in a group of its own, says which process that is, and becomes the parent of what that leaves.
ADOPTER = (
    "import ctypes, subprocess, sys\n"
    "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
    "print(subprocess.Popen(sys.argv[1:], process_group=0).pid, file=sys.stderr, flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.mark.parametrize("option", ["--supervise", "--mask-output"])
def test_killed_while_all_is_stopped_and_adopted(agent, option):
    """So is one whose new parent could continue it, so that the kernel does not, and only continues what has an end to tell."""
    marked = Marked()
    command = [sys.executable, "-c", ADOPTER, *words(agent, *PYTHON, STUBBORN, options=(option,))]
    with Child[bytes](command, env=marked.env, stdin=-1, stdout=-1, stderr=-1) as adopter:
        assert adopter.stdin is not None and adopter.stdout is not None and adopter.stderr is not None
        supervisor = int(adopter.stderr.readline())
        assert len(adopter.stdout.read(PROCESSES)) == PROCESSES
        below = children(supervisor)
        os.killpg(supervisor, signal.SIGSTOP)
        wait_until(lambda: all(map(stopped, [*below, supervisor])))
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: marked.alive() == [adopter.pid])
        adopter.stdin.close()


def test_the_lifeline_is_killed(agent):
    """Where the process between is killed the supervisor ends everything, says so, and ends with 70."""
    marked = Marked()
    with start(agent, *PYTHON, STUBBORN, env=marked.env, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(PROCESSES)) == PROCESSES
        (lifeline,) = children(process.pid)
        os.kill(lifeline, signal.SIGKILL)
        assert process.wait(30) == 70
        assert b"was killed, so everything was ended" in process.stderr.read()
        assert marked.alive() == []
