"""What the service manager is told (sd_notify(3)), and the socket that it may have made (sd_listen_fds(3))."""

from __future__ import annotations

import functools
import os
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.agent.front.listener import listen
from prism_vault_agent.agent.notify import Notifier
from prism_vault_agent.config.settings import AgentSettings
from prism_vault_agent.errors import ConfigError
from tests.agent.asking import STATUS, descriptors, eventually, processes
from tests.support.as_user import in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent import AgentProcess

# Becomes its arguments with a socket that listens at a path, as systemd starts a service with a socket unit.
ACTIVATOR = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen(10)
if listening.fileno() != 3:
    os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="agent.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""

# A process that connects and asks before the agent is there.
EARLY = f"""
reading, writing = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        early = socket.socket(socket.AF_UNIX)
        early.connect(sys.argv[1])
        early.sendall({STATUS!r})
        os.write(writing, b".")
        told = b"".join(iter(lambda: early.recv(65536), b""))
        open(sys.argv[1] + ".part", "wb").write(told)
        os.rename(sys.argv[1] + ".part", sys.argv[1] + ".told")
    os._exit(0)
os.wait()
os.read(reading, 1)
"""


@pytest.fixture(params=["path", "abstract"])
def manager(request, place) -> Iterator[tuple[socket.socket, str]]:
    """The service manager's end, and how NOTIFY_SOCKET names it."""
    path = str(Path(tempfile.mkdtemp(dir=place)) / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind("\0" + path if request.param == "abstract" else path)
        receiving.settimeout(60)
        yield receiving, "@" + path if request.param == "abstract" else path


def fields(receiving: socket.socket) -> dict[str, str]:
    """Return the fields of the next message."""
    return dict(line.split("=", 1) for line in receiving.recv(4096).decode().split("\n"))


def test_the_manager_is_told(make_agent, manager):
    """READY once it serves, WATCHDOG with a STATUS at half the period, STOPPING when told to stop; nothing in between."""
    receiving, named = manager
    agent = make_agent(before=["/usr/bin/env", f"NOTIFY_SOCKET={named}", "WATCHDOG_USEC=1000000"])
    begun = time.monotonic()
    agent.start()
    ready = fields(receiving)
    assert ready.keys() == {"READY", "STATUS"}
    assert ready["READY"] == "1"
    beats = [fields(receiving) for _ in range(3)]
    assert time.monotonic() - begun >= 1.5, "three halves of a second"
    assert [beat["WATCHDOG"] for beat in beats] == ["1"] * 3
    assert beats[2]["STATUS"] == "logged_in, central reachable, 0 runs"
    assert agent.stop() == 0
    told = fields(receiving)
    while "WATCHDOG" in told:
        told = fields(receiving)
    assert told == {"STOPPING": "1"}


def test_a_manager_that_does_not_listen_is_not_waited_for(make_agent, manager):
    """A manager that reads nothing, so that its queue is full, holds nothing up."""
    _, named = manager
    agent = make_agent(before=["/usr/bin/env", f"NOTIFY_SOCKET={named}", "WATCHDOG_USEC=2000"]).start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)

        def full() -> bool:
            try:
                probe.sendto(b"", "\0" + named[1:] if named.startswith("@") else named)
            except BlockingIOError:
                return True
            return False

        eventually(full)
    assert agent.exec("--scope", "web", "--", "true").returncode == 0
    assert agent.stop() == 0


def test_what_changes_while_it_starts_is_seen(make_agent, manager):
    """A scope that is written the moment the agent says READY is known soon, though nothing was watched yet when it was read."""
    receiving, named = manager
    agent = make_agent(before=["/usr/bin/env", f"NOTIFY_SOCKET={named}"])
    with ThreadPoolExecutor(1) as starting:
        started = starting.submit(agent.start)
        assert "READY" in fields(receiving)
        agent.scope("late", {"URL": "vault://secret/web#url"})
        started.result()
        eventually(lambda: "late" in [scope["name"] for scope in agent.status()["scopes"]])


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_that_is_meant_for_us(environ, seconds):
    """The watchdog's period is taken where it is meant for this process; the variables are gone afterwards."""
    variables = {**environ, "NOTIFY_SOCKET": "/nonexistent", "MINE": "kept"}
    notifier = Notifier(variables)
    assert notifier.watchdog_seconds == seconds
    assert variables == {"MINE": "kept"}
    notifier.tell(READY="1")


def activated(agent: AgentProcess, directory: Path) -> AgentProcess:
    """Have the agent start with a socket of the manager's in ``directory``."""
    agent.socket = str(directory / "activated")
    agent.before = [sys.executable, "-I", "-S", "-c", ACTIVATOR, agent.socket]
    return agent


def test_a_socket_of_the_manager_is_served_and_kept(make_agent, place):
    """The passed socket is the agent's: it serves there and nowhere else, and leaves the name to the manager when it stops."""
    agent = make_agent()
    own = agent.socket
    activated(agent, Path(tempfile.mkdtemp(dir=place))).start()
    assert agent.status()["socket"] == {"path": agent.socket, "ours": True}
    assert agent.exec("--scope", "web", "--", "true").returncode == 0
    assert not os.path.lexists(own)
    assert agent.stop() == 0
    assert os.path.lexists(agent.socket)


def test_who_connected_before_the_start_is_served(make_agent, place):
    """A request that was waiting in the manager's socket before the agent started is answered."""
    agent = activated(make_agent(), Path(tempfile.mkdtemp(dir=place)))
    told = Path(f"{agent.socket}.told")
    agent.before[agent.before.index(ACTIVATOR)] = ACTIVATOR.replace("os.execv", EARLY + "os.execv")
    agent.start()
    eventually(told.exists)
    assert told.read_bytes().startswith(b"HTTP/1.1 200 ")


@pytest.mark.root
def test_what_the_manager_said_stays_with_us(make_agent, place):
    """No process of the agent inherits the manager's variables or its socket."""
    directory = Path(tempfile.mkdtemp(dir=place))
    agent = activated(make_agent(), directory)
    agent.before = ["/usr/bin/env", f"NOTIFY_SOCKET={directory / 'n'}", "WATCHDOG_USEC=60000000", *agent.before]
    agent.start()
    found = processes(agent)
    listening = os.readlink(f"/proc/{found.pop('front')}/fd/3")
    for pid in found.values():
        variables = Path(f"/proc/{pid}/environ").read_bytes()
        assert not [name for name in (b"NOTIFY_SOCKET", b"WATCHDOG_", b"LISTEN_") if name in variables]
        assert listening not in descriptors(pid)


SETTINGS = AgentSettings("server1", "/nonexistent/s", 0, 0, 0o600, "/nonexistent")


def passed(make: str, place: str, variables: dict[str, str]) -> str:
    """Return why what is passed as descriptor 3 is refused; nothing where it is taken."""
    if make == "file":
        descriptor = os.open("/dev/null", os.O_RDONLY)
    else:
        kind = socket.SOCK_DGRAM if make == "datagram" else socket.SOCK_STREAM
        family = socket.AF_INET if make == "internet" else socket.AF_UNIX
        made = socket.socket(family, kind)
        names: dict[str, Any] = {"internet": ("127.0.0.1", 0), "abstract": f"\0{place}"}
        made.bind(names.get(make, f"{place}/{make}"))
        if make not in ("datagram", "silent"):
            made.listen()
        if make == "unlinked":
            os.unlink(f"{place}/unlinked")
        descriptor = made.detach()
    os.dup2(descriptor, 3)
    try:
        listen(SETTINGS, {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), **variables})
    except ConfigError as error:
        return error.message
    return ""


@pytest.mark.parametrize("make", ["file", "datagram", "silent", "internet", "abstract", "unlinked"])
def test_a_passed_socket_must_be_one_that_can_be_guarded(make, place):
    """A descriptor that is no listening Unix socket with a path is a configuration error."""
    directory = tempfile.mkdtemp(dir=place)
    told = in_child(functools.partial(passed, make, directory, {}), uid=None)
    assert told == "what systemd passed is not a Unix socket listening at a path"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"LISTEN_FDS": "3"}, "systemd passed 3 sockets"),
        ({"LISTEN_FDS": "1025"}, "systemd passed 1025 sockets"),
        ({"LISTEN_FDS": "-1"}, "systemd passed -1 sockets"),
        ({"LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:asking:asking"}, ""),
        ({"LISTEN_FDS": "2"}, "systemd passed 2 sockets"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, "systemd passed 2 sockets"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "credentials:credentials"}, "systemd passed 2 sockets"),
        ({}, ""),
    ],
)
def test_two_sockets_of_a_kind_are_refused(place, variables, told):
    """The agent has one socket of its own and one for credentials, known by its name; others are refused."""
    directory = tempfile.mkdtemp(dir=place)
    assert in_child(functools.partial(passed, "good", directory, variables), uid=None) == told


def both(place: str, names: str) -> list[str]:
    """Return the paths at which the agent serves, and systemd asks for credentials, of two sockets that are passed as these."""
    for descriptor in (3, 4):
        made = socket.socket(socket.AF_UNIX)
        made.bind(f"{place}/{descriptor}")
        made.listen()
        os.dup2(made.fileno(), descriptor)
    ours, asked = listen(SETTINGS, {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": names})
    assert asked is not None
    return [os.path.basename(each.path) for each in (ours, asked)]


@pytest.mark.parametrize(("names", "found"), [("agent.socket:credentials", ["3", "4"]), ("credentials:x", ["4", "3"])])
def test_the_socket_for_credentials_is_known_by_its_name(place, names, found):
    """Of two sockets the one named ``credentials`` is systemd's to ask at, in whatever order they are passed."""
    directory = tempfile.mkdtemp(dir=place)
    assert in_child(functools.partial(both, directory, names), uid=None) == found


def test_variables_for_another_process_are_ignored(make_agent):
    """LISTEN_FDS that is meant for another process (LISTEN_PID) is ignored, and the agent makes its own socket."""
    agent = make_agent(before=["/usr/bin/env", "LISTEN_FDS=1", "LISTEN_PID=1"]).start()
    assert agent.status()["socket"] == {"path": agent.socket, "ours": True}
