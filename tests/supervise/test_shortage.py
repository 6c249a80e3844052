"""Where the kernel gives no further process, which is where a fork bomb or a small container leads."""

from __future__ import annotations

import resource
import signal
import subprocess
from typing import Any

import pytest

from tests.supervise.supervised import PYTHON, line, stopped, words
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


def test_stopped_without_an_alarm(agent):
    """A supervised command is stopped and continued also where its supervisor can start no process beside it."""
    command = [*LIMITED, "--reuid=61020", *words(agent, *PYTHON, "print('up', flush=True); import time; time.sleep(60)")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, **limit(3)) as process:
        assert line(process) == "up"
        process.send_signal(signal.SIGTSTP)
        wait_until(lambda: stopped(process.pid))
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: not stopped(process.pid))
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
