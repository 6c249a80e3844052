"""The directory of a dev stack: made, held against a second dev, and left without anything that could be used or mistaken."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prism_vault_agent.config import way
from prism_vault_agent.config.places import LONGEST_SOCKET_PATH
from prism_vault_agent.errors import CannotCreate, ConfigError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK: Final = ".prism-vault-dev"
_OURS_BEFORE: Final = frozenset({"scopes.d", "log"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is. ``kept`` tells whether the directory stays when dev ends."""

    directory: Path
    socket: Path
    kept: bool

    @property
    def env(self) -> Path:
        """The file that tells a shell how to use the stack; it is there while the stack is ready."""
        return self.directory / "env"

    @property
    def log(self) -> Path:
        """The directory of the parts' logs."""
        return self.directory / "log"

    @property
    def openbao(self) -> Path:
        """The home of OpenBao, and where its credentials for the agent are."""
        return self.directory / "openbao"

    def write(self, name: str, content: str) -> Path:
        """Write a file (0600) of the directory, in one piece: it is old in full or new in full."""
        path = self.directory / name
        unfinished = path.with_name(f".{path.name}.new")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        unfinished.replace(path)
        return path


@contextlib.contextmanager
def hold(state: str | None) -> Iterator[Place]:
    """Give the place of a stack: the directory ``state``, or a fresh one that is removed at the end.

    Raises ``ConfigError`` for a directory that is somebody else's or holds something else, ``CannotCreate`` where it cannot
    be made, ``Unavailable`` where another dev holds it.
    """
    with contextlib.ExitStack() as cleaning:
        try:
            directory = _fresh(cleaning) if state is None else _kept(state)
            _lock(directory, cleaning)
            for name in ("scopes.d", "log", "openbao", "central", "agent"):
                (directory / name).mkdir(mode=0o700, exist_ok=True)
            place = Place(directory, _socket(directory, cleaning), state is not None)
        except OSError as error:
            where = error.filename or state
            raise CannotCreate(f"cannot make {where}: {error.strerror}", mend="choose another --state") from None
        cleaning.callback(_forget, place)
        _forget(place)
        yield place


def _fresh(cleaning: contextlib.ExitStack) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="prism-vault-dev-", dir=os.environ.get("XDG_RUNTIME_DIR") or None))
    cleaning.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory.resolve()


def _kept(state: str) -> Path:
    """Return the directory that the user named, if it is theirs alone and holds nothing but a stack."""
    directory = Path(state).absolute()
    if not str(directory).isprintable():
        raise ConfigError("--state has characters that cannot be printed", mend="choose another directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    directory = directory.resolve()
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{directory} belongs to uid {found.st_uid}, not to you", mend="choose another --state")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"others may write into {directory}", mend=f"chmod go-w {directory}")
    way.check(str(directory), set())  # as the agent does with its configuration
    names = set(os.listdir(directory))
    if MARK not in names and not names <= _OURS_BEFORE:
        raise ConfigError(f"{directory} holds something else", mend="choose an empty directory for --state")
    return directory


def _lock(directory: Path, cleaning: contextlib.ExitStack) -> None:
    """Hold the directory until the end; the kernel lets go of it when we die."""
    descriptor = os.open(directory / MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    cleaning.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unavailable(f"another prism-vault dev uses {directory}", mend="stop it, or choose another --state") from None


def _socket(directory: Path, cleaning: contextlib.ExitStack) -> Path:
    """Return the agent's socket: in the directory, or where its path would be too long in a fresh short one."""
    socket = directory / "agent.sock"
    if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
        return socket
    return _fresh(cleaning) / "agent.sock"


def _forget(place: Place) -> None:
    """Remove what is of use, or looks as if it were, only while the stack runs."""
    for path in (place.env, place.socket, place.openbao / "role-id", place.openbao / "secret-id"):
        path.unlink(missing_ok=True)
