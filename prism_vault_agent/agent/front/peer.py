"""Who is at the other end of the socket, as the kernel says, and is it still there?

SO_PEERCRED names who called connect(2), not who sends now; the process id may have been recycled. SO_PEERPIDFD (Linux 6.5)
hands over a descriptor of that very process, so what ``/proc`` says is read while the descriptor is known to be alive, and
asked once more before anything is released. Without it the descriptor is opened by number and compared by start time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from dataclasses import dataclass
from typing import Final

from prism_vault_agent.agent.began import began
from prism_vault_agent.agent.front.cgroup import container_of, unit_of
from prism_vault_agent.errors import Denied, PrismVaultError, Unavailable
from prism_vault_agent.model import Caller

SO_PEERPIDFD: Final = 77
SHORTAGE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
CREDENTIALS: Final = struct.Struct("3i")


class PeerGone(Denied):
    """Whoever connected has ended, or cannot be told from another process."""

    reason = "peer_gone"


@dataclass(slots=True)
class Peer:
    """An attested peer: its credentials and a descriptor of its process, which the owner must close."""

    uid: int
    gid: int
    pid: int
    pidfd: int
    guaranteed: bool

    def caller(self) -> Caller:
        """Return what the kernel says of the process now. Raises ``PeerGone`` if it ended meanwhile."""
        try:
            stat = _read(f"/proc/{self.pid}/stat")
            status = _read(f"/proc/{self.pid}/status")
            cgroup = _read(f"/proc/{self.pid}/cgroup")
        except OSError as error:
            raise _untold(error) from None
        try:
            executable = os.readlink(f"/proc/{self.pid}/exe")
        except OSError:
            executable = ""  # another user's process, seen by an agent that is not root
        self.check()  # alive now: so all of the above was read of this process and of no later one
        if not self.guaranteed and _numbers(status, "Uid:")[1] != self.uid:
            raise _gone()  # the number is another process's by now
        return Caller(
            pid=self.pid,
            uid=self.uid,
            gid=self.gid,
            groups=frozenset(_numbers(status, "Groups:")),
            executable=executable,
            started=began(stat.rpartition(")")[2].split()),
            unit=unit_of(cgroup),
            container=container_of(cgroup),
            guarantee="pidfd" if self.guaranteed else "start-time",
        )

    def check(self) -> None:
        """Raise ``PeerGone`` if the process has ended."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if poll.poll(0):
            raise _gone()

    def still(self, caller: Caller) -> None:
        """Raise ``PeerGone`` unless the process lives, started when it did and runs what it ran."""
        if self.caller() != caller:
            raise PeerGone("the caller became another program while it waited", mend="run exec again")

    def unknown(self) -> Caller:
        """Return a caller of which only the credentials are known, for the record of a denial."""
        return Caller(self.pid, self.uid, self.gid, frozenset(), "", 0, guarantee="start-time")

    def close(self) -> None:
        """Close the descriptor."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def attest(connection: socket.socket) -> Peer:
    """Return the peer of a connected Unix socket. Raises ``PeerGone`` where it cannot be told.

    A peer in a process namespace that we do not see has pid 0 (unix(7)): it is refused rather than guessed.
    """
    pid, uid, gid = credentials(connection)
    if pid <= 0:
        raise PeerGone("the caller's process is in a namespace that this agent cannot see", mend="share the process namespace")
    try:
        pidfd = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4))[0]
        os.set_inheritable(pidfd, False)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL, *SHORTAGE):  # the first two: the process was reaped already
            raise _untold(error) from None
        return _weaker(pid, uid, gid)
    return Peer(uid, gid, pid, pidfd, guaranteed=True)


def open_again(pid: int, started: int) -> int | None:
    """Return a descriptor of the process that began then under this number, ours to close; None where that one has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    # Its number may be another process's by now, which started at another time. An execve changes neither.
    with contextlib.suppress(OSError):
        if began(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()) == started:
            return pidfd
    os.close(pidfd)
    return None


def credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Return process, user and group of whoever called connect(2), as they were then (SO_PEERCRED, unix(7))."""
    pid, uid, gid = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return pid, uid, gid


def _weaker(pid: int, uid: int, gid: int) -> Peer:
    """Return a peer by its number: good unless the number was recycled between connect and now."""
    try:
        return Peer(uid, gid, pid, os.pidfd_open(pid), guaranteed=False)
    except OSError as error:
        raise _untold(error) from None


def _numbers(status: str, name: str) -> list[int]:
    """Return the numbers of one line of ``/proc/PID/status`` (proc_pid_status(5))."""
    return next([int(number) for number in line.split()[1:]] for line in status.split("\n") if line.startswith(name))


def _read(path: str) -> str:
    # Lines end with a newline and nothing else: the kernel escapes that one, but not a carriage return, in a process's name.
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return file.read()


def _untold(error: OSError) -> PrismVaultError:
    """Return why a process could not be looked at: it has been reaped, or we are short of descriptors or memory."""
    if error.errno in SHORTAGE:
        return Unavailable("the agent is out of descriptors or memory", mend="retry", reason="busy")
    return _gone()


def _gone() -> PeerGone:
    return PeerGone("the caller has ended", mend="run exec again")
