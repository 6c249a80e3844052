"""What supervisor and lifeline tell each other of a command that stops and goes on, each with the test in the other's place.

So the orders of events are made that are rare between the two.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.exec import tree
from prism_vault_agent.exec.channel import ALOUD, AWAKE, CONTINUED, ENDED, GO, STOPPED, WOKEN
from tests.exec.fake_agent import ROOT
from tests.supervise.supervised import children, command_of, start, status_of, stopped
from tests.support.child import Child
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = (
    "import os, select, signal, socket, sys\n"
    "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    f"sys.path.insert(0, {str(ROOT)!r})\n"
    "channel = socket.socket(fileno=int(sys.argv[1]))\n"
)
SUPERVISOR = PLACE + (
    "from prism_vault_agent.exec import following, kernel, restarting, supervise\n"
    "supervise.Inherited()\n"
    "restarts = restarting.Restarts('no', 0, 60)\n"
    "following.Supervisor(channel, kernel.signal_descriptor(), os.getppid(), restarts, []).run()\n"
)
LIFELINE = PLACE + (
    "from prism_vault_agent.exec import lifeline, starting, supervise\n"
    "inherited = supervise.Inherited()\n"
    "become = starting.Starting(lambda _: os.execv('/bin/sleep', ['sleep', '60']), lambda *_: inherited.restore())\n"
    "lifeline.watch(channel, become, again=False, own_group=False)\n"
)


@contextlib.contextmanager
def opposite(code: str) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """Run one of the two; what it tells is read from a socket that gives up after a while."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(30)
    words, passed = [sys.executable, "-Ic", code, str(theirs.fileno())], [theirs.fileno()]
    with ours, theirs, Child[bytes](words, pass_fds=passed, process_group=0) as process:
        theirs.close()
        yield ours, process


@pytest.fixture
def command():
    """A process that is stopped."""
    with subprocess.Popen(["sleep", "60"]) as process:
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: stopped(process.pid))
        yield process
        process.kill()


def test_a_supervisor_asks_before_it_stops_again(command):
    """Woken because the command ran, or by the lifeline, a supervisor stops again only when the lifeline says so.

    Else the lifeline, which has still to tell what happened, wakes it again; a shell then takes for running what is stopped.
    """
    told = STOPPED + bytes([signal.SIGSTOP]) + command.pid.to_bytes(4, "little")
    with opposite(SUPERVISOR) as (lifeline, process):
        assert lifeline.recv(64) == GO + ALOUD
        lifeline.send(told)
        wait_until(lambda: stopped(process.pid))
        command.send_signal(signal.SIGCONT)
        command.send_signal(signal.SIGSTOP)
        assert lifeline.recv(64) == WOKEN + b"\0"
        assert not stopped(process.pid)
        wait_until(lambda: stopped(command.pid))  # a lifeline tells of a stop that has come about
        lifeline.send(CONTINUED + b"\1")
        lifeline.send(told)
        assert lifeline.recv(64) == AWAKE + b"\1"
        wait_until(lambda: stopped(process.pid))
        process.send_signal(signal.SIGCONT)  # the lifeline's, too late: it had not seen yet that this was read
        assert lifeline.recv(64) == WOKEN + b"\1"
        lifeline.send(told)
        wait_until(lambda: stopped(process.pid))
        process.send_signal(signal.SIGCONT)
        assert lifeline.recv(64) == WOKEN + b"\1"
        lifeline.send(ENDED + bytes(4))


def test_a_lifeline_answers():
    """Asked by a supervisor that has read all, a lifeline tells once more that the command is stopped; by another nothing."""
    with opposite(LIFELINE) as (supervisor, process):
        supervisor.send(GO + ALOUD)
        (command,) = wait_until(lambda: children(process.pid))
        wait_until(lambda: b"sleep" in Path(f"/proc/{command}/cmdline").read_bytes())
        supervisor.send(WOKEN + b"\0")
        os.kill(command, signal.SIGSTOP)
        told = supervisor.recv(64)
        assert told == STOPPED + bytes([signal.SIGSTOP]) + command.to_bytes(4, "little")
        supervisor.send(WOKEN + b"\0")
        assert supervisor.recv(64) == told
        supervisor.send(WOKEN + b"\7")
        os.kill(command, signal.SIGCONT)
        assert supervisor.recv(64) == CONTINUED + b"\1"
        supervisor.close()
        process.wait(30)
        assert not Path(f"/proc/{command}").exists()


@pytest.mark.parametrize("passed_on", [False, True], ids=["to the group", "and passed on too"])
def test_what_is_sent_before_there_is_a_command(passed_on):
    """What the lifeline gets alone, since the supervisor has left its group, reaches the command that comes; once.

    So does what the supervisor was sent before it had left, of which the lifeline cannot tell whether it had.
    """
    with opposite(LIFELINE) as (supervisor, process):
        wait_until(lambda: not int(status_of(process.pid, "SigBlk"), 16) & 1 << 8 and int(status_of(process.pid, "SigBlk"), 16))
        if passed_on:
            supervisor.send(bytes([signal.SIGINT]))
        subprocess.run(["kill", "-INT", str(process.pid)], check=True)
        wait_until(lambda: not int(status_of(process.pid, "ShdPnd"), 16))
        supervisor.send(GO + ALOUD)
        told = supervisor.recv(64)
        while told[:1] != ENDED:
            told = supervisor.recv(64)
        assert os.WTERMSIG(int.from_bytes(told[1:], "little")) == signal.SIGINT


def test_a_continuation_that_is_read_late(agent):
    """A lifeline that reads a SIGCONT to the group when the command has stopped again wakes nobody."""
    with start(agent, "sleep", "60") as process:
        command = command_of(process.pid)
        (lifeline,) = children(process.pid)
        os.kill(command, signal.SIGSTOP)
        wait_until(lambda: stopped(process.pid))
        before = tree.switches(lifeline)
        os.kill(lifeline, signal.SIGCONT)
        wait_until(lambda: tree.switches(lifeline) > before)
        assert stopped(process.pid)
        assert stopped(command)
        process.kill()
