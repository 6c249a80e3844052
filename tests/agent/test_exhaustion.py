"""Out of descriptors, or with a log that nobody reads: the agent rests, answers what it can, and recovers by itself."""

from __future__ import annotations

import functools
import os
import resource
import select
import signal
import sys
import time

import pytest

from tests.agent.asking import (
    Told,
    answer,
    at_rest,
    connect,
    cpu_seconds,
    elapsed,
    eventually,
    exec_request,
    nothing_left,
    pid_of,
    processes,
    send,
)
from tests.support.as_user import in_child

OPEN_TO_MANY = "connections_per_user = 10000"


def test_f91_out_of_descriptors(make_agent):
    """F91: out of descriptors the agent rests instead of spinning, and serves those who wait as soon as it has some again."""
    agent = make_agent(agent=OPEN_TO_MANY).start()
    process = pid_of(agent)
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)

    def ask_without_descriptors() -> list[int]:
        resource.prlimit(process, resource.RLIMIT_NOFILE, (0, before[1]))
        idle = [connect(agent.socket) for _ in range(100)]
        eventually(lambda: "accept.failed" in agent.log)
        since, used, failures = time.monotonic(), cpu_seconds(process), agent.log.count("accept.failed")
        eventually(lambda: agent.log.count("accept.failed") >= failures + 10)
        assert cpu_seconds(process) - used < elapsed(since) / 4
        asked = [connect(agent.socket) for _ in range(20)]
        for connection in asked:
            send(connection, exec_request("web"))
        resource.prlimit(process, resource.RLIMIT_NOFILE, before)
        for connection in idle:
            connection.close()
        return [answer(connection).status for connection in asked]

    assert in_child(ask_without_descriptors, uid=None) == [200] * 20
    eventually(lambda: agent.exec("--scope", "web", "--", "true").returncode == 0)


@pytest.mark.root
def test_f91_out_of_descriptors_at_any_point(make_agent):
    """F91: wherever in a request the descriptors run out it is answered busy, or served late; afterwards all is as before."""
    agent = make_agent().start()
    process = pid_of(agent)
    rest = at_rest(agent)
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)

    def ask_short_of_descriptors(room: int) -> list[Told]:
        taken = {int(name) for name in os.listdir(f"/proc/{process}/fd")}
        free = min(set(range(len(taken) + 1)) - taken)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (free + room, before[1]))
        asked = [connect(agent.socket) for _ in range(5)]
        for connection in asked:
            send(connection, exec_request("web"))
        failures = agent.log.count("accept.failed")
        eventually(lambda: agent.log.count("accept.failed") > failures or len(select.select(asked, [], [], 0)[0]) == 5)
        resource.prlimit(process, resource.RLIMIT_NOFILE, before)
        return [answer(connection) for connection in asked]

    for room in range(1, 20):
        for told in in_child(functools.partial(ask_short_of_descriptors, room), uid=None):
            assert told.status == 200 or (told.status, told.exit) == (503, 75), told
        assert agent.exec("--scope", "web", "--", "true").returncode == 0
        eventually(lambda: agent.status()["workers"]["idle"] == 4)
    nothing_left(agent, rest)


def test_f91_the_warm_parent_is_lost_without_descriptors(make_agent):
    """F91: when the warm parent dies while there are no descriptors for another, there is one as soon as there are some."""
    agent = make_agent().start()
    process = pid_of(agent)
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)
    parent = next(pid for name, pid in processes(agent).items() if name.startswith("warm parent"))
    resource.prlimit(process, resource.RLIMIT_NOFILE, (0, before[1]))
    os.kill(parent, signal.SIGKILL)
    eventually(lambda: "workers.parent_failed" in agent.log)
    resource.prlimit(process, resource.RLIMIT_NOFILE, before)
    eventually(lambda: agent.status()["workers"]["idle"] == 4)
    assert agent.exec("--scope", "web", "--", "true").returncode == 0


BLOCKED_LOG = """
import os, sys
reading, writing = os.pipe()
os.set_blocking(writing, False)
try:
    while True:
        os.write(writing, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(writing, True)
os.set_inheritable(reading, True)
os.dup2(writing, 2)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_f94_a_full_log_pipe(make_agent):
    """F94: when nobody reads the log any more the agent goes on serving, and stops when told to."""
    agent = make_agent(before=[sys.executable, "-I", "-S", "-c", BLOCKED_LOG]).start()
    for _ in range(10):
        assert agent.exec("--scope", "web", "--", "true").returncode == 0
    assert agent.exec("--scope", "unknown", "--", "true").returncode == 77
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)  # that it has reloaded is in no log
    assert agent.status()["ready"]
    assert agent.stop() == 0
