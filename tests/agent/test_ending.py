"""When a run is killed that ignores SIGTERM: to the moment, on a clock that passes only when nothing else is left to do."""

from __future__ import annotations

import os
import signal
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from prism_vault_agent.agent.runs.ending import end
from prism_vault_agent.agent.runs.run import Run
from tests.model.clock import Clock, Loop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prism_vault_agent.model import Render

DEAF = ("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")


class Deaf:
    """The tree of a process that ignores SIGTERM; ``asked`` and ``killed`` are when, on the clock of the test."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[float] = []
        self.killed: list[float] = []
        self.process = subprocess.Popen(DEAF, stdout=subprocess.PIPE, process_group=0)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"deaf\n"

    def left(self) -> bool:
        """Tell whether it lives."""
        return self.process.poll() is None

    def descriptors(self) -> Iterator[int]:
        """Note that it is about to be signalled."""
        self.asked.append(self.clock.monotonic)
        descriptor = os.pidfd_open(self.process.pid)
        yield descriptor
        os.close(descriptor)

    def kill(self) -> bool:
        """Note when, and kill it as a control group is killed."""
        self.killed.append(self.clock.monotonic)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        return True

    def leave(self) -> None:
        """Nothing was done with it."""

    def remove(self) -> None:
        """There is nothing to take away."""


def run_of(tree: Deaf, graces: list[float]) -> Run:
    """Return a run of scopes that give so many seconds."""
    grant = SimpleNamespace(scopes=[SimpleNamespace(grace=each) for each in graces], caller=SimpleNamespace(pid=tree.process.pid))
    return Run(cast("Render", SimpleNamespace(reservation=SimpleNamespace(grant=grant))), -1, 0.0, tree)


@pytest.mark.parametrize(
    ("graces", "now", "after"),
    [([10.0], False, 10.0), ([0.3], False, 0.3), ([30.0, 2.0], False, 2.0), ([10.0], True, 0.0)],
)
def test_f66_the_kill_comes_with_the_end_of_the_grace(graces, now, after):
    """SIGTERM at once, SIGKILL after the shortest grace of its scopes and no sooner or later; neither waits in an emergency."""
    clock = Clock()
    began, tree, loop = clock.monotonic, Deaf(clock), Loop(clock, lambda: None)
    run = run_of(tree, graces)

    def look(run: Run) -> None:
        if not run.held():
            run.ended.set()

    try:
        ending = loop.create_task(end(run, "revoked", now=now, helper="", look=look))
        loop.run_for(2 * after + 60)
        assert ending.result() == {"pid": tree.process.pid, "how": "SIGKILL"}
    finally:
        if tree.left():
            tree.kill()
        loop.close()
    assert tree.asked == ([] if now else [began])
    assert tree.killed == [pytest.approx(began + after, abs=0.001)]
