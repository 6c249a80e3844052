"""Many callers, slow callers and hostile callers: nobody is lost, nobody starves the others, and nothing is left over."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.cli import socket as commands
from tests.agent.asking import (
    STATUS,
    answer,
    ask,
    at_rest,
    connect,
    descriptors,
    eventually,
    nothing_left,
    pid_of,
    send,
)
from tests.support.as_user import in_child
from tests.support.soak import count

if TYPE_CHECKING:
    from collections.abc import Iterator


OPEN_TO_MANY = "connections_per_user = 10000"
MOST_SCM_RIGHTS = 253


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Let this process hold as many sockets as the host allows."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def statuses(path: str, number: int) -> list[int]:
    """Send many status requests before any answer is read; return the HTTP status of each, which must be whole and right."""
    open_ones: list[socket.socket] = []
    for _ in range(number):
        open_ones.append(connect(path))
        send(open_ones[-1], STATUS)
    found = []
    for connection in open_ones:
        with connection:
            told = answer(connection)
            if told.status == 200:
                assert json.loads(told.body)["socket"]["path"] == path
            else:
                assert (told.status, told.exit) == (503, 75)
                assert b"too many connections" in told.body
        found.append(told.status)
    return found


@pytest.mark.root
@pytest.mark.soak
def test_f86_passed_descriptors_are_ignored(agent):
    """F86: descriptors sent along with a request, 253 at a time, are never taken; the agent's own stay as they were."""
    before = at_rest(agent)
    spare = os.open("/dev/null", os.O_RDONLY)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{MOST_SCM_RIGHTS}i", *[spare] * MOST_SCM_RIGHTS))]
    for _ in range(count(50, 5_000)):
        with connect(agent.socket) as connection:
            for place in range(0, len(STATUS), 8):
                connection.sendmsg([STATUS[place : place + 8]], rights)
            assert "/dev/null" not in descriptors(pid_of(agent))[1:]
            assert answer(connection).status == 200
    os.close(spare)
    nothing_left(agent, before)


@pytest.mark.root
def test_f87_idle_peers_do_not_hold_up_others(make_agent):
    """F87: while 3,000 peers are connected and silent others are served; the silent ones are closed after two seconds."""
    agent = make_agent(agent=OPEN_TO_MANY).start()
    before = at_rest(agent)
    idle = [connect(agent.socket) for _ in range(3_000)]
    for _ in range(200):
        assert ask(agent.socket, STATUS).status == 200
    assert agent.exec("--scope", "web", "--", "true").returncode == 0
    for connection in idle:
        with connection:
            assert answer(connection).status == 408
    nothing_left(agent, before)


def test_f88_ten_thousand_at_once(make_agent):
    """F88: of 10,000 requests that are under way together each gets its own whole answer."""
    agent = make_agent(agent=OPEN_TO_MANY).start()
    process = pid_of(agent)
    first: list[socket.socket] = []
    os.kill(process, signal.SIGSTOP)
    try:
        for _ in range(1_000):  # all waiting before the first is looked at
            first.append(connect(agent.socket))
            first[-1].sendall(STATUS)
    finally:
        os.kill(process, signal.SIGCONT)
    assert statuses(agent.socket, 9_000) == [200] * 9_000
    for connection in first:
        with connection:
            assert answer(connection).status == 200


def test_f88_overload_is_answered_busy(make_agent):
    """F88: what is over a user's limit is answered with 503 and exit status 75 at once; what is under it is served."""
    agent = make_agent(agent="connections_per_user = 8").start()
    idle = [connect(agent.socket) for _ in range(8)]
    assert statuses(agent.socket, 100) == [503] * 100
    for connection in idle:
        connection.close()
    eventually(lambda: ask(agent.socket, STATUS).status == 200)
    done = agent.exec("--scope", "web", "--", "true")
    assert done.returncode == 0, done.stderr


def test_f88_a_full_queue_is_waited_for(make_agent):
    """F88: a command that finds the agent's queue of connections full waits for its turn."""
    agent = make_agent(agent=OPEN_TO_MANY).start()
    queued: list[socket.socket] = []
    os.kill(pid_of(agent), signal.SIGSTOP)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                queued.append(socket.socket(socket.AF_UNIX))
                queued[-1].setblocking(False)
                queued[-1].connect(agent.socket)
        told: list[int] = []
        asking = threading.Thread(
            target=lambda: told.append(commands.ask(agent.socket, "GET", "/v1/status", seconds=60)[1]["pid"])
        )
        asking.start()
        place = Path(f"/proc/self/task/{asking.native_id}/wchan")
        eventually(lambda: not asking.is_alive() or place.read_text() == "unix_wait_for_peer")
    finally:
        os.kill(pid_of(agent), signal.SIGCONT)
        for connection in queued:
            connection.close()
    asking.join()
    assert told == [pid_of(agent)]


@pytest.mark.root
def test_f89_one_user_cannot_starve_another(make_agent):
    """F89: while one user holds and renews more connections than it may, every request of another is served."""
    agent = make_agent(agent='connections_per_user = 16\nsocket_mode = "0666"').start()
    reading, writing = os.pipe()

    def flood() -> int:
        os.close(writing)
        os.set_blocking(reading, False)
        refused, stopped, held = 0, False, []
        while not (stopped and refused):
            held.append(connect(agent.socket))
            if len(held) > 6_000:  # more than the queue holds, so the oldest has been looked at
                with held.pop(0) as oldest, contextlib.suppress(BlockingIOError):
                    oldest.setblocking(False)
                    refused += oldest.recv(64).startswith(b"HTTP/1.1 503")
            with contextlib.suppress(BlockingIOError):
                stopped = os.read(reading, 1) == b""
        return refused

    refused: list[int] = []
    flooding = threading.Thread(target=lambda: refused.append(in_child(flood)))
    flooding.start()
    try:
        for _ in range(50):
            assert ask(agent.socket, STATUS).status == 200
        assert agent.exec("--scope", "web", "--", "true").returncode == 0
    finally:
        os.close(writing)
        flooding.join()
        os.close(reading)
    assert refused[0] > 0


def test_f91_the_agent_takes_the_descriptors_that_it_may(make_agent):
    """F91: a small soft limit, meant for users of select(2), does not limit the agent."""
    small = "import os, resource, sys; most = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
    small += "resource.setrlimit(resource.RLIMIT_NOFILE, (64, most)); os.execv(sys.argv[1], sys.argv[1:])"
    agent = make_agent(agent=OPEN_TO_MANY, before=[sys.executable, "-I", "-S", "-c", small]).start()
    assert resource.prlimit(pid_of(agent), resource.RLIMIT_NOFILE) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert statuses(agent.socket, 100) == [200] * 100
