"""The agent's socket as a name in the file system: whose it is, who may use it, and what happens when it is not ours any more."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from prism_vault_agent.agent.front.listener import Listener
from prism_vault_agent.errors import CannotCreate, ConfigError, PrismVaultError, Unavailable
from tests.agent.asking import STATUS, answer, connect, eventually, pid_of
from tests.agent.listening import listening
from tests.support.agent import LAUNCHER

ROOT = os.geteuid() == 0


def try_agent(config: Path) -> subprocess.CompletedProcess[str]:
    """Run an agent that is expected to end at once."""
    words = [LAUNCHER, "agent", "--config", str(config)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(config.parent)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_f81_a_second_agent_is_refused(agent):
    """F81: a second agent on a living socket exits 75 and says why; the first keeps the socket and serves on."""
    before = os.lstat(agent.socket)
    done = try_agent(agent.config)
    assert done.returncode == 75
    assert f"another agent listens at {agent.socket}" in done.stderr.splitlines()[-1]
    assert os.lstat(agent.socket) == before
    assert agent.status()["pid"] == pid_of(agent)


def test_f81_of_many_at_once_one_wins(short):
    """F81: of many agents that start at the same moment exactly one gets the socket; nobody's living socket is replaced."""
    together = threading.Barrier(8)
    results: list[str] = []

    def start() -> None:
        together.wait()
        try:
            won.append(listening(short / "s"))
            results.append("won")
        except PrismVaultError as error:
            results.append(error.reason)

    won: list[Listener] = []
    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["second_agent"] * 7 + ["won"]
    assert won[0].ours()
    won[0].close()


@pytest.mark.parametrize("waiting", [0, 2])
def test_f81_a_living_socket_without_lock_is_left_alone(short, waiting):
    """F81: a socket on which anything listens is not replaced, also when its queue of connections is full."""
    path = str(short / "s")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen(0 if waiting else 5)
        before = os.lstat(path)
        queued = [socket.socket(socket.AF_UNIX) for _ in range(waiting)]
        for connection in queued:
            connection.setblocking(False)
            connection.connect_ex(path)
        with pytest.raises(Unavailable, match="another agent listens"):
            listening(path)
        assert os.lstat(path).st_ino == before.st_ino
        for connection in queued:
            connection.close()


def test_f82_a_stale_socket_is_replaced(make_agent):
    """F82: after a kill the name is still there; the next agent replaces it and serves."""
    agent = make_agent().start()
    agent.kill()
    assert stat.S_ISSOCK(os.lstat(agent.socket).st_mode)
    assert agent.start().status()["socket"] == {"path": agent.socket, "ours": True}
    agent.stop()
    assert not os.path.lexists(agent.socket)


def test_f82_what_is_no_socket_is_never_replaced(short):
    """F82: a file, a directory or a FIFO where the socket should be is an error that names it, and stays as it is."""
    (short / "file").write_text("precious")
    (short / "directory").mkdir()
    os.mkfifo(short / "fifo")
    for name in ("file", "directory", "fifo"):
        with pytest.raises(CannotCreate, match=f"{name} is not a socket"):
            listening(short / name)
    assert (short / "file").read_text() == "precious"


def test_f82_a_link_is_replaced_and_not_followed(short):
    """F82: a dangling symbolic link at the socket's path is replaced itself; nothing is made where it leads."""
    (short / "s").symlink_to(short / "elsewhere")
    listener = listening(short / "s")
    assert not (short / "elsewhere").exists()
    assert stat.S_ISSOCK(os.lstat(short / "s").st_mode)
    listener.close()


def test_f83_a_lost_socket_is_told(make_agent):
    """F83: when its name is gone or leads to another socket, status says so, it is not ready, and the log says it once."""
    agent = make_agent(before=["/usr/bin/env", "WATCHDOG_USEC=400000"]).start()
    with connect(agent.socket) as connection:
        os.unlink(agent.socket)
        connection.sendall(STATUS)
        told = json.loads(answer(connection).body)
    assert (told["socket"]["ours"], told["ready"]) == (False, False)
    eventually(lambda: "socket.lost" in agent.log)
    with socket.socket(socket.AF_UNIX) as thief:
        thief.bind(agent.socket)
        assert agent.stop() == 0
        assert os.path.lexists(agent.socket), "somebody else's socket is not ours to unlink"
    assert agent.log.count("socket.lost") == 1


def test_f84_a_long_path_is_a_configuration_error(make_agent, short):
    """F84: a socket path of 108 bytes is refused with exit status 78 and the limit; one of 107 serves."""
    room = 107 - len(os.fsencode(short / "s"))
    longest = listening(f"{short / 's'}{'x' * room}")
    assert longest.ours()
    longest.close()
    with pytest.raises(ConfigError, match="longer than 107 bytes"):
        listening(f"{short / 's'}{'x' * (room + 1)}")
    agent = make_agent()
    agent.config.write_text(agent.main.replace(agent.socket, f"{short / 's'}{'x' * (room + 1)}"))
    done = try_agent(agent.config)
    assert done.returncode == 78
    assert "107 bytes" in done.stderr


def test_stop_takes_the_name_away(make_agent):
    """A stopped agent leaves no socket behind, and can be started again."""
    agent = make_agent().start()
    assert agent.stop() == 0
    assert not os.path.lexists(agent.socket)
    assert agent.start().status()["ready"]
