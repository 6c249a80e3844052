"""The disk of the agent's state is full, for real: what is to be taken back goes all the same, and its record waits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.agent.asking import command_line
from tests.support.fault_proxy import Fault, always
from tests.support.files import Filed, filed
from tests.support.signalled import status_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.namespaces


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack whose agent has its state on a file system of half a mebibyte."""
    with filed() as running:
        agent, state = running.stack.agent, running.stack.agent.directory / "state"
        agent.stop()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "prism-vault-test", str(state)], check=True)
        try:
            agent.start()
            yield running
            agent.stop()
        finally:
            agent.kill()
            subprocess.run(["umount", str(state)], check=True)


@contextlib.contextmanager
def full(made: Filed) -> Iterator[None]:
    """Leave not a byte of room for a while."""
    path = made.stack.agent.directory / "state" / "filling"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    free = os.statvfs(path)
    assert free.f_bavail == 0
    try:
        yield
    finally:
        path.unlink()


def test_what_is_revoked_goes_at_once_and_its_record_waits_in_memory(made):
    """With the disk full and central away a revocation ends the run and clears the file, says so, and is recorded afterwards."""
    name = made.scope("filled")
    made.render(name)
    rendered = made.told(name)["id"]
    agent = made.stack.agent
    child = agent.spawn("--scope", name, "--", "sleep", "1000")
    wait_until(lambda: "prism-vault" not in command_line(child.pid))
    run = wait_until(lambda: [run["id"] for run in agent.status()["runs"] if run["pid"] == child.pid])[0]
    with full(made):
        with made.stack.to_central.failing(always(Fault("reset"))):
            made.command("revoke", name)
            assert status_of(child) == -signal.SIGTERM
            assert made.file(name) is None
            wait_until(lambda: '"journal.failed"' in agent.log)
        assert made.ended(run) == "revoked" and made.ended(rendered) == "revoked"
    made.stack.works()


def test_nothing_is_given_whose_end_could_be_lost(made):
    """While it cannot be written down who is given what, an exec ends with 73 and a line, and no release stays open."""
    made.stack.settle()
    before = len(made.stack.rows())
    with full(made):
        made.stack.fails(73, "No space left on device")
    made.stack.settle()
    kinds = [row["kind"] for row in made.stack.rows()[before:]]
    assert kinds in (["reserved", "failure"], ["reserved", "success", "cleared"])
    made.stack.works()
