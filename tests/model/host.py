"""The host around the agent: real processes that ask for values and hold them, and a real directory for files."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prism_vault_agent.agent.front.peer import Peer
from prism_vault_agent.exec.wire import encode_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Signals that a process ends at that is not stubborn, beside SIGKILL.
DEADLY = (signal.SIGTERM, signal.SIGUSR1)


@dataclass(eq=False)
class Client:
    """A process that asks with ``exec``, and that becomes its command where it is given values.

    ``stubborn`` ones ignore SIGTERM and SIGUSR1; SIGHUP ends none. ``values`` are what it holds, by name,
    ``audit_id`` is what it was told with them; ``signals`` are what the agent sent it, each with its time of the wall clock.
    """

    name: str
    scopes: tuple[str, ...]
    run_ref: str
    stubborn: bool
    deadline: float
    pid: int
    pidfd: int
    connection: socket.socket | None = None
    received: bytes = b""
    status: int = 0
    audit_id: str = ""
    values: dict[str, str] = field(default_factory=dict)
    since: float = 0.0
    signals: list[tuple[int, float]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.pidfd >= 0 and not _readable(self.pidfd)

    @property
    def reservation(self) -> str:
        """The reservation of what it holds."""
        return self.audit_id.removeprefix("pva_")

    def collect(self, now: float) -> None:
        """Take what has come; become the command with a whole answer, or end."""
        if self.connection is None:
            return
        ended = False
        try:
            while part := self.connection.recv(65536):
                self.received += part
            ended = True
        except BlockingIOError:
            pass
        except ConnectionResetError:  # nobody has read what it asked
            ended = True
        if self._whole() or ended or now >= self.deadline:
            self.since = now
            self.hang_up()

    def hang_up(self) -> None:
        """Stop waiting: become the command where the answer is whole and gives values, else end."""
        if self.connection is None:
            return
        self.connection.close()
        self.connection = None
        head, _, body = self.received.partition(b"\r\n\r\n")
        if not self._whole():
            self.end()
            return
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        self.status = int(head.split()[1])
        if self.status != 200:
            self.end()
            return
        self.audit_id = headers["X-Prism-Vault-Audit-Id"]
        self.values = dict(item.split("=", 1) for item in body.decode().split("\0") if item)

    def _whole(self) -> bool:
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return False
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        return len(body) >= length

    def end(self) -> None:
        """End the process by itself."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # it is ours, and not reaped yet
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            os.close(self.pidfd)
            self.pidfd = -1
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def reap(self) -> None:
        """Take note of its end."""
        if self.pidfd >= 0 and _readable(self.pidfd):
            self.end()


@dataclass
class Processes:
    """The processes of this host that ever asked."""

    all: list[Client] = field(default_factory=list)

    def start(self, scopes: tuple[str, ...], run_ref: str, now: float, *, stubborn: bool, seconds: float) -> Client:
        """Start a process that ignores SIGTERM and SIGUSR1 where it is ``stubborn``."""
        ignored = (signal.SIGHUP, *(DEADLY if stubborn else ()))
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
        try:
            pid = os.posix_spawn("/bin/sleep", ["sleep", "3600"], {}, file_actions=[(os.POSIX_SPAWN_CLOSE, 0)])
        finally:
            for number, restored in before.items():
                signal.signal(number, restored)
        client = Client(f"\0model-{os.getpid()}-{pid}", scopes, run_ref, stubborn, now + seconds, pid, os.pidfd_open(pid))
        self.all.append(client)
        return client

    def ask(self, client: Client, path: str, seconds: float) -> None:
        """Have a process ask the agent at ``path``; where there is none, it ends."""
        connection = socket.socket(socket.AF_UNIX)
        connection.bind(client.name)
        connection.setblocking(False)
        fields = [(b"scope", name.encode()) for name in client.scopes]
        fields += [(b"run_ref", client.run_ref.encode()), (b"timeout_ms", str(int(seconds * 1000)).encode())]
        client.connection = connection
        try:
            connection.connect(path)
            connection.sendall(encode_request(fields))
        except OSError:
            client.end()

    def collect(self, now: float) -> None:
        """Let each take what has come for it."""
        for client in self.all:
            client.collect(now)
            client.reap()

    def holding(self) -> Iterator[Client]:
        """Iterate over those that live and hold values."""
        return (client for client in self.all if client.values and client.alive)

    def attest(self, connection: socket.socket) -> Peer:
        """Return who is at the other end, as ``front/peer.py`` does for one that connected itself."""
        name = connection.getpeername()
        client = next(each for each in self.all if each.name.encode() == name)
        return Peer(os.geteuid(), os.getegid(), client.pid, os.pidfd_open(client.pid), guaranteed=True)

    def end(self) -> None:
        """End all."""
        for client in self.all:
            client.end()


def signalling(send: Callable[..., None], note: Callable[[int, int], bool]) -> Callable[..., None]:
    """Return ``signal.pidfd_send_signal`` that returns when who is meant to die of it has: simulated time waits for no kernel.

    ``note`` is told the process and the signal, and tells whether that process is stubborn.
    """

    def sent(pidfd: int, number: int, *rest: Any) -> None:
        send(pidfd, number, *rest)
        with open(f"/proc/self/fdinfo/{pidfd}") as info:
            pid = next(int(line.split()[1]) for line in info if line.startswith("Pid:"))
        stubborn = note(pid, number)
        if number == signal.SIGKILL or (number in DEADLY and not stubborn):
            _readable(pidfd, 10_000)

    return sent


def _readable(descriptor: int, milliseconds: int = 0) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(milliseconds))
