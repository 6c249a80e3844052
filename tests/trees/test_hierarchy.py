"""Where control groups are mounted, and where in them a process is."""

from __future__ import annotations

import os

import pytest

from prism_vault_agent.agent.trees import hierarchy
from prism_vault_agent.agent.trees.choice import Facts, Means, choose
from prism_vault_agent.agent.trees.hierarchy import Hierarchy, hierarchies

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:9 master:1 - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
V2 = Hierarchy("/sys/fs/cgroup", "/", unified=True)
V1 = Hierarchy("/sys/fs/cgroup/systemd", "/", unified=False)
PLACES = "9:name=systemd:/user.slice/session-4.scope\n4:memory:/elsewhere\n0::/user.slice/session-4.scope\n"


def test_the_unified_hierarchy_goes_first():
    """Of what is mounted the unified hierarchy is taken before systemd's own; those that limit something are no place of ours."""
    assert hierarchies(HYBRID) == [Hierarchy("/sys/fs/cgroup/uni fied", "/", unified=True), V1]
    assert hierarchies("") == hierarchies("nonsense\n - cgroup2\n") == []


@pytest.mark.parametrize(
    ("place", "told", "directory"),
    [
        (V2, PLACES, "/sys/fs/cgroup/user.slice/session-4.scope"),
        (V1, PLACES, "/sys/fs/cgroup/systemd/user.slice/session-4.scope"),
        (V2, "0::/\n", "/sys/fs/cgroup"),
        (V1, "0::/\n", None),
        (V2, "0::/../../elsewhere\n", None),
        (V2, "0::/a:b\n", "/sys/fs/cgroup/a:b"),
        (Hierarchy("/host", "/docker/1", unified=True), "0::/docker/1/app\n", "/host/app"),
        (Hierarchy("/host", "/docker/1", unified=True), "0::/docker/12\n", None),
        (V2, "", None),
    ],
)
def test_where_a_process_is(place: Hierarchy, told: str, directory: str | None):
    """What ``/proc/PID/cgroup`` tells leads to a directory, unless the mount does not show it."""
    assert place.directory(told) == directory


def test_this_process_is_found():
    """On this host our own group is found, with us among its processes."""
    directory = hierarchy.where(os.getpid())
    assert directory is not None
    with open(f"{directory}/cgroup.procs") as file:
        assert os.getpid() in map(int, file.read().split())


@pytest.mark.parametrize(
    ("facts", "means"),
    [
        (Facts(seen=True, divisible=True, alone=True), Means.GROUP),
        (Facts(seen=True, divisible=True, alone=False), Means.GROUP),
        (Facts(seen=True, divisible=False, alone=True), Means.PLACE),
        (Facts(seen=True, divisible=False, alone=False), Means.DESCENDANTS),
        (Facts(seen=False, divisible=False, alone=False), Means.DESCENDANTS),
    ],
)
def test_the_best_that_the_host_allows(facts: Facts, means: Means):
    """A group of its own catches most; where none can be made, one that the process has to itself; else what can be told."""
    assert choose(facts) is means
