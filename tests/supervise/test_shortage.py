"""Where the kernel gives no further process, which is where a fork bomb or a small container leads."""

from __future__ import annotations

import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.supervise.supervised import PYTHON, line, stopped, words
from tests.support.child import Child
from tests.support.waiting import wait_until

# The limit is nobody's who is root, or may overrule it; our files may be root's only.
LIMITED = ["setpriv", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]


def limit(processes: int) -> dict[str, Any]:
    """Return how a command is started whose user may have so many processes."""
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))}


@pytest.mark.parametrize(
    ("option", "most", "leader"),
    [
        pytest.param("--supervise", 1, False, id="lifeline"),
        pytest.param("--supervise", 2, True, id="group"),
        pytest.param("--supervise", 2, False, id="command"),
        pytest.param("--mask-output", 1, False, id="mask"),
        pytest.param("--mask-output", 3, False, id="masked"),
    ],
)
def test_no_further_process(agent, option, most, leader):
    """Whichever process cannot be started, exec says so in one line, with 75, and nothing is left."""
    command = [*LIMITED, f"--reuid={61_000 + 10 * leader + most}", *words(agent, "true", options=(option,))]
    done = subprocess.run(command, check=False, capture_output=True, process_group=0 if leader else None, **limit(most))
    assert done.returncode == 75
    assert done.stderr.startswith(b"prism-vault: the command cannot be supervised (resource temporarily unavailable); raise the")
    assert done.stderr.count(b"\n") == 1


def test_a_restart_waits_for_a_process(agent):
    """A command that cannot be started again for want of a process is, once there is one; that it waits is said once."""
    options = ("--restart", "always", "--restart-limit", "9/1m")
    code = "import posix; posix.write(1, b'up\\n'); posix.read(0, 1); posix._exit(1)"
    pipes: dict[str, Any] = {"stdin": -1, "stdout": -1, "stderr": -1}
    command = [*LIMITED, "--reuid=61030", *words(agent, *PYTHON, code, options=options)]
    with Child[bytes](command, **pipes, **limit(3)) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert line(process) == "up"
        with subprocess.Popen(["setpriv", "--clear-groups", "--reuid=61030", "sleep", "60"]) as other:
            wait_until(lambda: Path(f"/proc/{other.pid}/comm").read_text() == "sleep\n")
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert b"(resource temporarily unavailable); raise the limits" in process.stderr.readline()
            assert b"is started as soon as that is possible" in process.stderr.readline()
            other.kill()
        assert line(process) == "up"
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
        assert process.stderr.read() == b""


def test_stopped_without_an_alarm(agent):
    """A supervised command is stopped and continued also where its supervisor can start no process beside it."""
    command = [*LIMITED, "--reuid=61020", *words(agent, *PYTHON, "print('up', flush=True); import time; time.sleep(60)")]
    with Child[bytes](command, stdout=subprocess.PIPE, **limit(3)) as process:
        assert line(process) == "up"
        process.send_signal(signal.SIGTSTP)
        wait_until(lambda: stopped(process.pid))
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: not stopped(process.pid))
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
