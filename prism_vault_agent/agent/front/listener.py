"""The agent's Unix socket: ours alone, with its owner and mode right before its name is visible, and still ours later."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import CannotCreate, ConfigError, Unavailable
from prism_vault_agent.policy.names import shown

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from prism_vault_agent.config.settings import AgentSettings

LONGEST_PATH: Final = 107
BACKLOG: Final = 4096
FIRST_PASSED: Final = 3
MOST_PASSED: Final = 1024
# What the socket of credentials is called by its unit (FileDescriptorName=).
CREDENTIALS: Final = "credentials"
# What a connection to it is called that systemd keeps open for the next agent.
LEFT: Final = "asking"

Connection = socket.socket


@dataclass(slots=True)
class Listener:
    """The listening socket, with what is needed to know that it is still the one that its path leads to."""

    socket: socket.socket
    path: str
    identity: tuple[int, int]
    lock: int
    ours_to_unlink: bool
    # Of systemd's socket for credentials: the connections that an earlier agent was killed with.
    left: tuple[Connection, ...] = ()

    def ours(self) -> bool:
        """Tell whether the path still leads to our socket."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.identity

    def close(self) -> None:
        """Stop listening; the name goes with it, unless it is systemd's or somebody else's by now."""
        if self.ours_to_unlink and self.ours():
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.socket.close()
        if self.lock >= 0:
            os.close(self.lock)


# The agent's own, and the one that systemd asks for credentials, where systemd has made it.
Listeners = tuple[Listener, Listener | None]


def listen(settings: AgentSettings, environ: MutableMapping[str, str]) -> Listeners:
    """Return the socket that systemd passed (sd_listen_fds(3)), else a new one at ``settings.socket``; and that for credentials.

    Raises ``Unavailable`` when another agent has it and ``CannotCreate`` or ``ConfigError`` when it cannot be made.
    """
    announced = _announced(environ)
    passed = [each for each in announced if each[1] != LEFT]
    credentials = [place for place, name in passed if name == CREDENTIALS]
    others = [place for place, name in passed if name != CREDENTIALS]
    if len(credentials) > 1 or len(others) > 1:
        raise ConfigError(f"systemd passed {len(passed)} sockets", mend="set one ListenStream= for each of the agent's sockets")
    ours = _passed(others[0]) if others else _bound(settings)
    if not credentials:
        return ours, None
    left = tuple(socket.socket(fileno=place) for place, name in announced if name == LEFT)
    return ours, replace(_passed(credentials[0]), left=left)


def _announced(environ: MutableMapping[str, str]) -> list[tuple[int, str]]:
    """Return the descriptors that systemd passed with their names, and take what announces them out of the environment."""
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or count in ("", "0"):
        return []
    if not (count.isascii() and count.isdigit() and int(count) <= MOST_PASSED):
        raise ConfigError(f"systemd passed {shown(count)} sockets", mend="set one ListenStream= for each of the agent's sockets")
    return [(FIRST_PASSED + place, names[place] if place < len(names) else "") for place in range(int(count))]


def _passed(descriptor: int) -> Listener:
    """Return systemd's socket."""
    try:
        passed = socket.socket(fileno=descriptor)
        os.set_inheritable(descriptor, False)
        path = passed.getsockname()
        listening = passed.family == socket.AF_UNIX and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        # An abstract socket (its name is bytes) has no owner and no mode: everybody could connect.
        if listening and isinstance(path, str):
            found = os.lstat(path)
            passed.setblocking(False)
            return Listener(passed, path, (found.st_dev, found.st_ino), -1, ours_to_unlink=False)
    except OSError:
        pass
    raise ConfigError("what systemd passed is not a Unix socket listening at a path", mend="set ListenStream= to a path")


def _bound(settings: AgentSettings) -> Listener:
    """Bind in a private directory, set owner and mode there, and only then rename to the public name."""
    path = settings.socket
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ConfigError(f"the socket path {path} is longer than {LONGEST_PATH} bytes", mend="set a shorter [agent] socket")
    directory = os.path.dirname(path)
    lock = -1
    try:
        _make_directory(directory)
        lock = _lock(path)
        _refuse_living(path)
        private = tempfile.mkdtemp(prefix=".new-", dir=directory)
        try:
            bound = socket.socket(socket.AF_UNIX)
            _bind(bound, private)
            os.chown(os.path.join(private, "s"), settings.socket_uid, settings.socket_gid)
            os.chmod(os.path.join(private, "s"), settings.socket_mode)
            bound.listen(BACKLOG)
            bound.setblocking(False)
            found = os.lstat(os.path.join(private, "s"))
            os.rename(os.path.join(private, "s"), path)
        finally:
            shutil.rmtree(private, ignore_errors=True)
    except OSError as error:
        if lock >= 0:
            os.close(lock)
        raise CannotCreate(
            f"cannot make the socket {path}: {error.strerror}", mend="check its directory, owner and group"
        ) from None
    except BaseException:
        if lock >= 0:
            os.close(lock)
        raise
    return Listener(bound, path, (found.st_dev, found.st_ino), lock, ours_to_unlink=True)


def _bind(unbound: socket.socket, directory: str) -> None:
    """Bind at the name ``s`` in ``directory``, by a path that is short even where the directory's own is not."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        unbound.bind(f"/proc/self/fd/{descriptor}/s")
    finally:
        os.close(descriptor)


def _make_directory(directory: str) -> None:
    """Make the directory of the socket, or refuse one in which somebody else could put another socket."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(directory, 0o755 if os.geteuid() == 0 else 0o700)
    found = os.stat(directory)
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"{directory} could be changed by another user (owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o})",
            mend="make it yours and chmod go-w, or set another [agent] socket",
        )


def _lock(path: str) -> int:
    """Return the descriptor of the lock that says this socket has an agent."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise _another(path) from None
    return lock


def _refuse_living(path: str) -> None:
    """Raise when somebody listens at ``path``: a socket that answers is never replaced, a stale one is."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except BlockingIOError:  # its queue of connections is full: somebody has it
            raise _another(path) from None
        except ConnectionRefusedError:
            # So says connect(2) of everything but a socket, too.
            if stat.S_ISSOCK(os.stat(path).st_mode):
                return
            raise CannotCreate(f"{path} is not a socket", mend="move it away, or set another [agent] socket") from None
    raise _another(path)


def _another(path: str) -> Unavailable:
    return Unavailable(f"another agent listens at {path}", mend="stop it first", reason="second_agent")
