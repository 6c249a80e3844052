"""Speaking to the agent's socket byte by byte, and looking at its process from outside."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from prism_vault_agent.exec import wire
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.agent import AgentProcess
    from tests.support.central import CentralProcess

STATUS = b"GET /v1/status HTTP/1.1\r\nHost: prism-vault\r\n\r\n"
TICKS = os.sysconf("SC_CLK_TCK")


class Told(NamedTuple):
    """One answer; ``exit`` is the exit status that goes with an error."""

    status: int
    exit: int
    body: bytes


def exec_request(*scopes: str, **fields: Any) -> bytes:
    """Return an exec request as the thin client sends it."""
    pairs = [(b"scope", scope.encode()) for scope in scopes]
    pairs += [(b"timeout_ms", b"20000")] if "timeout_ms" not in fields else []
    pairs += [(name.encode(), str(value).encode()) for name, value in fields.items()]
    return wire.encode_request(pairs)


def connect(path: str) -> socket.socket:
    """Return a connection that fails rather than hang."""
    connection = socket.socket(socket.AF_UNIX)
    # Where the queue is full a connect(2) with this limit waits; one that never blocks, as with settimeout(), fails at once.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 60, 0))
    connection.connect(path)
    connection.settimeout(60)
    return connection


def send(connection: socket.socket, message: bytes) -> None:
    """Send, unless the agent has answered and closed already."""
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(message)


def receive(connection: socket.socket) -> bytes:
    """Return all that comes until the end."""
    parts: list[bytes] = []
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:  # closed while something of ours was unread
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)


def answer(connection: socket.socket) -> Told:
    """Return the one answer that comes, which must be well formed."""
    status, headers, body = wire.parse_answer(receive(connection))
    return Told(status, int(headers.get(b"x-prism-vault-exit", b"0")), body)


def ask(path: str, request: bytes) -> Told:
    """Send one request and return its answer."""
    with connect(path) as connection:
        send(connection, request)
        return answer(connection)


def descriptors(pid: int) -> list[str]:
    """Return what the descriptors of a process lead to (root's to see, where the process is not dumpable)."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            continue
    return sorted(found)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def children(pid: int) -> dict[int, str]:
    """Return the children of a process and of theirs, with their command lines."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = int(_stat(int(name))[1])
            except OSError:
                continue
    found = {child for child, parent in parents.items() if parent == pid}
    found |= {child for child, parent in parents.items() if parent in found}
    return {child: command_line(child) for child in found}


def command_line(pid: int) -> str:
    """Return how a process is called; nothing where it has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def pid_of(agent: AgentProcess) -> int:
    """Return the agent's process id."""
    assert agent.process is not None
    return agent.process.pid


def rows(central: CentralProcess, audit_id: str) -> list[dict[str, Any]]:
    """Return the rows of one audit id."""
    reservation = audit_id.removeprefix("pva_")
    return central.events(reservation=reservation)


def last_audit_id(text: str) -> str:
    """Return the audit id that an error line ends with."""
    return text.rpartition("(")[2].partition(")")[0]


def eventually(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait generously for a condition."""
    wait_until(condition, seconds)


def elapsed(since: float) -> float:
    """Return the seconds since a time of ``time.monotonic``."""
    return time.monotonic() - since


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def at_rest(agent: AgentProcess) -> int:
    """Return how many descriptors the agent has with its connections to others made, its workers ready and nobody connected."""
    assert agent.exec("--scope", "web", "--", "true").returncode == 0
    number = 0

    def same() -> bool:
        nonlocal number
        before, number = number, len(descriptors(pid_of(agent)))
        return before == number and agent.status()["workers"]["idle"] == 4

    eventually(same)
    return number


def nothing_left(agent: AgentProcess, before: int) -> None:
    """Wait until the agent holds no more descriptors than ``before``."""
    eventually(lambda: len(descriptors(pid_of(agent))) <= before)


def processes(agent: AgentProcess) -> dict[str, int]:
    """Return the agent's processes once all are there: the front, the warm parent and the workers."""

    def below() -> dict[str, int]:
        """Return its children, once they are these: a process that reads the configuration is there for a moment."""
        found = {f"{line.removeprefix('prism-vault agent: ')} {pid}": pid for pid, line in children(pid_of(agent)).items()}
        return found if sorted(name.rpartition(" ")[0] for name in found) == ["warm parent", *["worker"] * 4] else {}

    return {"front": pid_of(agent), **wait_until(below, 60)}
