"""Processes by a real helper: ended where a scope's caller covers them, as the kernel tells them, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.helper.wire import Said, Verb
from tests.support.as_user import NOBODY
from tests.support.helper import MAIL, WWW_DATA, HelperProcess, packet

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.namespaces]


@pytest.fixture
def sleeping() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of the test, which are gone after it."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for each in started:
        each.kill()
        each.wait()


def sleep(started: list[subprocess.Popen[bytes]], uid: int, groups: tuple[int, ...] = ()) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process of a user; return it and a descriptor of it."""
    child = subprocess.Popen(["sleep", "1000"], user=uid, group=uid, extra_groups=groups)
    started.append(child)
    return child, os.pidfd_open(child.pid)


def kill(helper: HelperProcess, pidfd: int, number: int = signal.SIGTERM) -> tuple[Said, str]:
    """Ask for a signal, as the agent."""
    return helper.raw(packet(Verb.KILL, number), (pidfd,))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
def test_a_process_of_a_caller_is_signalled(helper, sleeping, number):
    """A process of the user that a scope's caller names gets the signal; the log says which and from whom."""
    child, pidfd = sleep(sleeping, WWW_DATA)
    assert kill(helper, pidfd, number) == (Said.DONE, "")
    assert child.wait(60) == -number
    done = helper.told("helper.done")[-1]
    assert (done["verb"], done["numbers"], done["pid"]) == ("kill", [number, 0], child.pid)


def test_one_that_has_ended_is_told_as_ended(helper, sleeping):
    """The agent gets ``ProcessLookupError`` as from the kernel, also after the process was reaped."""
    child, pidfd = sleep(sleeping, WWW_DATA)
    child.kill()
    child.wait()
    assert kill(helper, pidfd) == (Said.ENDED, "")
    with pytest.raises(ProcessLookupError):
        helper.asked(lambda asking: asking.kill(pidfd, signal.SIGTERM))


@pytest.mark.parametrize("uid", [MAIL, NOBODY, 0])
def test_a_process_that_no_caller_covers_lives_on(helper, sleeping, uid):
    """Another user's process, root's and one of the agent's own user are refused, in the caller's group or not."""
    child, pidfd = sleep(sleeping, uid, (WWW_DATA,))
    said, line = kill(helper, pidfd)
    assert said is Said.REFUSED and str(child.pid) in line
    assert child.poll() is None


def test_the_first_process_the_helper_and_the_agent_are_never_signalled(helper):
    """Not by a descriptor of theirs either."""
    assert helper.process is not None
    for pid in (1, helper.process.pid, os.getpid()):
        pidfd = os.pidfd_open(pid)
        said, line = kill(helper, pidfd)
        os.close(pidfd)
        assert said is Said.REFUSED and f"process {pid} " in line
    assert helper.process.poll() is None


@pytest.mark.parametrize("number", [0, signal.SIGCONT, signal.SIGSEGV, 64, 65, 2**32 - 1])
def test_another_signal_is_refused(helper, sleeping, number):
    """What is not on the short list is refused, whoever is to get it."""
    child, pidfd = sleep(sleeping, WWW_DATA)
    said, line = kill(helper, pidfd, number)
    assert said is Said.REFUSED and f"signal {number} " in line and child.poll() is None


def test_what_is_no_process_is_refused(helper, sleeping):
    """A file, a directory of /proc (which pidfd_send_signal(2) would take) or a socket is no descriptor of a process."""
    child, _ = sleep(sleeping, WWW_DATA)
    for path in ("/dev/null", f"/proc/{child.pid}", "/proc/1"):
        descriptor = os.open(path, os.O_RDONLY)
        said, line = kill(helper, descriptor)
        os.close(descriptor)
        assert said is Said.REFUSED and "no descriptor of a process" in line
    assert child.poll() is None
