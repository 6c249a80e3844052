"""Signals that are sent to the supervisor reach the command, each once."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.supervise.supervised import CATCHABLE, PROBE, PYTHON, command_of, line, start, stopped
from tests.support.soak import count
from tests.support.waiting import wait_until

OWN_SESSION = pytest.mark.parametrize("own_session", [False, True])


def test_each_once(agent):
    """Each of the 60 signals that can be caught, real-time signals too, reaches the command once and in order."""
    for own_session in (False, True) * count(1, 5):
        with start(agent, *PYTHON, PROBE, start_new_session=own_session) as process:
            assert line(process) == "ready"
            for number in CATCHABLE:
                process.send_signal(number)
                assert line(process) == str(int(number))
            process.send_signal(signal.SIGUSR1)
            assert line(process) == str(int(signal.SIGUSR1))
            os.kill(command_of(process.pid), signal.SIGKILL)
            assert process.wait(30) == -signal.SIGKILL


def test_to_the_group(agent):
    """What is sent to the whole process group reaches the command once, and not a second time by the supervisor."""
    group = subprocess.Popen(["sleep", "60"], process_group=0)
    try:
        with start(agent, *PYTHON, PROBE, process_group=group.pid) as process:
            assert line(process) == "ready"
            for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM, signal.SIGWINCH, signal.SIGRTMIN + 3):
                os.killpg(group.pid, number)
                assert line(process) == str(int(number))
            process.send_signal(signal.SIGUSR2)
            assert line(process) == str(int(signal.SIGUSR2))
            os.kill(command_of(process.pid), signal.SIGKILL)
            process.wait(30)
    finally:
        group.kill()
        group.wait()


def test_to_the_group_that_the_supervisor_led(agent):
    """Also where the supervisor was the group's leader, as in a shell with job control, it leaves the group to the command."""
    with start(agent, *PYTHON, PROBE, process_group=0) as process:
        assert line(process) == "ready"
        assert os.getpgid(process.pid) != process.pid == os.getpgid(command_of(process.pid))
        for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGRTMAX):
            os.killpg(process.pid, number)
            assert line(process) == str(int(number))
        os.kill(command_of(process.pid), signal.SIGKILL)
        process.wait(30)


def test_a_command_in_a_group_of_its_own(agent):
    """A command that left the group is still sent what is sent to the group: directly, it would lead it."""
    code = "import posix; posix.setpgid(0, 0)\n" + PROBE
    with start(agent, *PYTHON, code, process_group=0) as process:
        assert line(process) == "ready"
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2):
            os.killpg(process.pid, number)
            assert line(process) == str(int(number))
        os.kill(command_of(process.pid), signal.SIGKILL)
        process.wait(30)


def test_before_the_command_is_there(agent):
    """A signal that comes while the interpreter starts ends everything or reaches the command; none is lost."""
    for _ in range(count(3, 50)):
        with start(agent, "sleep", "60") as process:
            cmdline = Path(f"/proc/{process.pid}/cmdline")
            wait_until(lambda: b"supervise" in cmdline.read_bytes())  # noqa: B023 - called within the loop's turn
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM


@OWN_SESSION
@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU])
def test_stop_and_go_on(agent, own_session, number):
    """A stop that is sent to the supervisor stops the command, and then the supervisor; SIGCONT to it continues both."""
    with start(agent, "sleep", "60", start_new_session=own_session) as process:
        command = command_of(process.pid)
        for _ in range(count(2, 10)):
            process.send_signal(number)
            if own_session and number == signal.SIGTSTP:  # the kernel stops no orphaned group: directly, nothing had happened
                wait_until(lambda: not stopped(process.pid) and not stopped(command))
                continue
            wait_until(lambda: stopped(command) and stopped(process.pid))
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: not stopped(command) and not stopped(process.pid))
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


def test_the_command_is_stopped_and_continued(agent):
    """Who stops the command stops the supervisor, and who continues it continues both; a signal then arrives once."""
    with start(agent, *PYTHON, PROBE) as process:
        assert line(process) == "ready"
        command = command_of(process.pid)
        for _ in range(count(3, 20)):
            os.kill(command, signal.SIGSTOP)
            wait_until(lambda: stopped(process.pid))
            os.kill(command, signal.SIGCONT)
            wait_until(lambda: not stopped(process.pid))
            assert line(process) == str(int(signal.SIGCONT))
        process.send_signal(signal.SIGUSR1)
        assert line(process) == str(int(signal.SIGUSR1))
        os.kill(command, signal.SIGSTOP)
        wait_until(lambda: stopped(process.pid))
        os.kill(command, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL


def test_the_whole_group_is_stopped_and_continued(agent):
    """A group that is stopped and continued as a whole stops and continues the supervisor with it."""
    with start(agent, *PYTHON, PROBE, process_group=0) as process:
        assert line(process) == "ready"
        command = command_of(process.pid)
        for _ in range(count(3, 20)):
            os.killpg(process.pid, signal.SIGSTOP)
            wait_until(lambda: stopped(process.pid) and stopped(command))
            os.killpg(process.pid, signal.SIGCONT)
            wait_until(lambda: not stopped(process.pid) and not stopped(command))
            assert line(process) == str(int(signal.SIGCONT))
        os.kill(command, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
