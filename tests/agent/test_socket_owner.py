"""Whose the agent's socket is, and who may use it, at every moment at which it can be seen."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading

import pytest

from prism_vault_agent.errors import ConfigError
from tests.agent.asking import STATUS, answer, connect
from tests.agent.listening import listening
from tests.support.as_user import NOBODY, in_child
from tests.support.soak import count

ROOT = os.geteuid() == 0


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_can_change_is_refused(short, mode):
    """Where somebody else could put another socket in place of ours, none is made."""
    short.chmod(mode)
    with pytest.raises(ConfigError, match="could be changed by another user"):
        listening(short / "s")


@pytest.mark.root
def test_a_directory_of_another_user_is_refused(short):
    """A directory that belongs to another user than us and root is refused."""
    os.chown(short, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="owner 65534"):
        listening(short / "s")


@pytest.mark.soak
def test_owner_and_mode_are_right_before_the_name_is_visible(short):
    """Whoever watches the directory never sees the socket with another owner or mode, and a stranger never gets in."""
    path, stop = short / "s", short / "stop"
    reading, writing = os.pipe()
    short.chmod(0o755)

    def observe() -> tuple[set[tuple[int, int, int]], int]:
        os.write(writing, b".")
        seen: set[tuple[int, int, int]] = set()
        entered = 0
        while not stop.exists():
            # Before its name is the public one it is in a directory that is closed to others.
            private = [short / name / "s" for name in os.listdir(short) if name.startswith(".new")] if ROOT else []
            for candidate in (path, *private):
                with contextlib.suppress(OSError):
                    found = os.lstat(candidate)
                    seen.add((found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)))
            if ROOT:
                with socket.socket(socket.AF_UNIX) as connection:
                    entered += connection.connect_ex(str(path)) == 0
        return seen, entered

    results: list[tuple[set[tuple[int, int, int]], int]] = []
    observer = threading.Thread(target=lambda: results.append(in_child(observe, NOBODY if ROOT else None)))
    before = os.umask(0)
    try:
        observer.start()
        os.read(reading, 1)  # a child that is made later would share the lock
        for _ in range(count(300, 10_000)):
            listening(path, mode=0o600).close()
    finally:
        os.umask(before)
        stop.touch()
        observer.join()
        os.close(reading)
        os.close(writing)
    wrong = results[0][0] - {(os.geteuid(), os.getegid(), 0o600)}
    assert (wrong, results[0][1]) == (set(), 0)


@pytest.mark.root
def test_the_socket_is_for_its_group(make_agent):
    """The socket has the owner, group and mode of the configuration: its group gets in, others do not."""
    agent = make_agent(agent='socket_group = "4242"\nsocket_mode = "0660"').start()
    found = os.lstat(agent.socket)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 4242, 0o660)

    def status() -> int:
        with connect(agent.socket) as connection:
            connection.sendall(STATUS)
            return answer(connection).status

    with pytest.raises(PermissionError):
        in_child(status)
    assert in_child(status, groups=[4242]) == 200
