"""What a revocation ends in a container of a real engine: a run beside the program with its daemons, and the program's whole."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_exec_container import SECRET, Exec, served
from tests.support.agent import LAUNCHER
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER = 3
EXEC = ("python3", "-ISE", "/opt/prism-vault/launcher/prism-vault", "exec", "--timeout", "60s", "--scope", "web")


class Daemons:
    """Daemons that ignore SIGTERM and are nobody's children, known by how long they sleep."""

    def __init__(self) -> None:
        self.word = str(secrets.randbelow(10**8) + 10**8)
        self.shell = f"trap '' TERM; for each in $(seq {NUMBER}); do (setsid sleep {self.word} &); done; sleep infinity"

    def living(self) -> int:
        """Return how many of them live."""
        return sum(line.split(b"\0")[:2] == [b"sleep", self.word.encode()] for line in lines())


def lines() -> Iterator[bytes]:
    """Iterate over the command lines of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:
            continue


@pytest.fixture
def example(images, provider, audit) -> Iterator[Exec]:
    """Return the example, which is not up, and the agent of its host, which runs."""
    engine, sources = images
    provider.kv_put(SECRET, {"database_url": "canary-51c0"})
    with served(provider, audit) as agent:
        made = Exec(engine, sources, agent)
        yield made
        made.down()


def revoke(example: Exec, *words: str) -> None:
    """Revoke on the host, and wait until all is ended."""
    subprocess.run([LAUNCHER, "revoke", *words], env=example.agent.environment(), check=True, capture_output=True, timeout=60)


def test_a_whole_container_ends_and_of_another_run_in_it_what_that_has_started(example):
    """What was executed beside the program ends with its daemons and the program not; then the container, daemons and all."""
    program, beside = Daemons(), Daemons()
    example.over = {"services": {"app": {"restart": "no", "command": ["sh", "-c", program.shell]}}}
    example.create()
    example.compose("start")
    wait_until(lambda: program.living() == NUMBER)
    words = (*EXEC, "--run-ref", "beside", "--", "sh", "-c", beside.shell)
    example.engine.docker("exec", "--detach", "exec-app-1", *words)
    wait_until(lambda: beside.living() == NUMBER)

    revoke(example, "--run-ref", "beside")
    assert (beside.living(), program.living()) == (0, NUMBER)
    assert example.container("app")["State"]["Status"] == "running"
    revoke(example, "web")
    assert example.ended() == 137
    assert program.living() == 0
    wait_until(lambda: example.agent.status()["runs"] == [])
