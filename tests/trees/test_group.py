"""A control group of a run's own, in each hierarchy that this host has: all that is forked in it is found, and ended."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.agent.runs.ending import kill
from prism_vault_agent.agent.trees import hierarchy
from prism_vault_agent.agent.trees.cgroupfs import members
from prism_vault_agent.agent.trees.group import Group
from tests.supervise.supervised import PYTHON, Marked
from tests.supervise.test_tree import SLEEP, daemons
from tests.support.soak import count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root


@pytest.fixture(params=["unified", "systemd"])
def group(request) -> Iterator[Group]:
    """A group that is not made yet, in the hierarchy of cgroup v2 and in the one of v1 that systemd names."""
    with open("/proc/self/cgroup") as file:
        told = file.read()
    place = next(each for each in hierarchy.mounted() if each.unified == (request.param == "unified"))
    group = Group(f"{place.directory(told)}/prism-vault-test-{secrets.token_hex(8)}")
    yield group
    assert not os.path.exists(group.directory)


def started(group: Group, code: str, number: int) -> tuple[subprocess.Popen[bytes], Marked]:
    """Start a program in the group; return when so many processes have told that they are there."""
    marked = Marked()
    code = "import sys; sys.stdin.read(1)\n" + code
    child = subprocess.Popen([*PYTHON, code, str(number)], env=marked.env, stdin=-1, stdout=-1)
    group.enter(child.pid)
    assert child.stdin is not None and child.stdout is not None
    child.stdin.close()
    assert len(child.stdout.read(number)) == number
    return child, marked


def test_orphans_are_in_it_and_end_with_it(group):
    """Daemons are in their run's group, are found by it, and are killed with it: by the kernel, or one by one."""
    number = count(30, 300)
    child, marked = started(group, daemons(SLEEP), number)
    with child:
        assert set(members(group.directory)) == set(marked.alive())
        assert sum(1 for _ in group.descriptors()) == number + 1
        asyncio.run(kill(group, ""))
        wait_until(lambda: not group.left())
    assert marked.alive() == []
    group.remove()


def test_forks_that_never_rest_end_where_the_kernel_does_not_kill(group, monkeypatch):
    """Processes that do nothing but fork and end are stopped until there are no new ones, and then killed."""
    bomb = "posix.write(1, b'.')\n            while True:\n                if posix.fork(): posix._exit(0)"
    child, marked = started(group, daemons(SLEEP, bomb), count(3, 20))
    monkeypatch.setattr(Group, "kill", lambda _: False)

    async def killed() -> None:
        while group.left():
            await kill(group, "")
            await asyncio.sleep(0.01)

    with child:
        asyncio.run(asyncio.wait_for(killed(), 60))
    assert marked.alive() == []
    group.remove()


def test_what_was_made_below_goes_too(group):
    """Groups that the run's processes have made below it are part of it, and are taken away with it."""
    child, _ = started(group, "", 0)
    with child:
        below = Group(f"{group.directory}/below")
        with subprocess.Popen(["sleep", "600"]) as other:
            below.enter(other.pid)
            assert other.pid in members(group.directory)
            asyncio.run(kill(group, ""))
        wait_until(lambda: not group.left())
    group.remove()


def test_who_was_given_nothing_is_put_back(group):
    """A process that is not to have a group after all is again where it was."""
    child, _ = started(group, "import time; time.sleep(600)", 0)
    with child:
        group.leave()
        with open(f"{os.path.dirname(group.directory)}/cgroup.procs") as file:
            assert child.pid in map(int, file.read().split())
        child.kill()


def test_a_group_that_cannot_be_entered_is_not_left(group):
    """Where a process cannot be put into it, the group is not there afterwards."""
    with subprocess.Popen(["true"]) as gone:
        pass
    with pytest.raises(ProcessLookupError):
        group.enter(gone.pid)
    assert not group.left()
