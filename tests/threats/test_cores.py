"""T8: no memory of the agent or of a command with secrets reaches a core file or a core handler."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agent.asking import eventually, processes
from tests.support.core_pattern import core_handler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent import AgentProcess

NOTED = '#!/bin/sh\necho "$1" >> "{directory}/noted"\n'


def core_limits(limits: str) -> tuple[str, ...]:
    """Return the soft and the hard limit on core files, from the text of ``/proc/PID/limits``."""
    return tuple(limits.partition("Max core file size")[2].split()[:2])


@pytest.fixture
def agent(made) -> Iterator[AgentProcess]:
    """An agent of the same user that may crash."""
    with made.stack.second(user=made.stack.agent.user or None) as running:
        eventually(lambda: running.status()["ready"])
        yield running


def test_t8_core_limits(agent):
    """No process of the agent may make a core file; a command's limit is one byte, for which no core handler is started."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 and os.geteuid() == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))
    for what, pid in processes(agent).items():
        assert core_limits(Path(f"/proc/{pid}/limits").read_text()) == ("0", "0"), what
    done = agent.exec("--scope", "web", "--", "cat", "/proc/self/limits")
    allowed = resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
    assert core_limits(done.stdout) == (("1", "1") if allowed else ("0", "0"))


def crash_plainly() -> int:
    """Have an unprotected process crash and return its id."""
    with subprocess.Popen(["/bin/sleep", "1000"]) as plain:
        resource.prlimit(plain.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        eventually(lambda: Path(f"/proc/{plain.pid}/comm").read_text() == "sleep\n")
        plain.send_signal(signal.SIGSEGV)
    return plain.pid


@pytest.mark.namespaces
def test_t8_no_core_handler_is_started(agent):
    """With a core handler that the kernel pipes to, a crash of the agent's processes or of a command starts it 0 times."""
    with core_handler(NOTED) as directory:
        noted = directory / "noted"
        first = crash_plainly()
        child = agent.spawn("--scope", "web", "--", "sleep", "1000")
        eventually(lambda: [run for run in agent.status()["runs"] if run["command"] == "sleep"])
        child.send_signal(signal.SIGSEGV)
        assert child.wait(60) == -signal.SIGSEGV
        child.communicate()
        found = processes(agent)
        assert agent.process is not None
        for pid in sorted(found.values(), key=lambda pid: pid == found["front"]):
            with contextlib.suppress(ProcessLookupError):  # a worker ends with the warm parent
                os.kill(pid, signal.SIGSEGV)
        assert agent.process.wait(60) == -signal.SIGSEGV
        agent.process = None
        last = crash_plainly()
        eventually(lambda: str(last) in noted.read_text().split())
        handled = set(noted.read_text().split())  # others of the host may crash meanwhile
        assert {str(first), str(last)} <= handled
        assert not handled & set(map(str, [child.pid, *found.values()]))
