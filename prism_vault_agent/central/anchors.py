"""Places out of the database's reach that a checkpoint can be written to: a file, a command, a journal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from prism_vault_agent.central.signing import sync_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.central.log.proofs import Signed
    from prism_vault_agent.central.log_settings import Anchor

JOURNAL_SECONDS: Final = 2.0
# Facility authpriv (10), severity notice (5): RFC 5424, section 6.2.1.
PRIORITY: Final = 10 * 8 + 5
TAG: Final = "prism-vault-central"
HANDED_ON: Final = ("PATH", "HOME")


class Place(Protocol):
    """One place. ``name`` is what the configuration calls it."""

    name: str

    async def write(self, signed: Signed) -> None:
        """Write a checkpoint there, for good. Raises ``OSError`` where it is not known to be there."""


def places(settings: Anchor) -> list[Place]:
    """Return the places that are configured."""
    found: list[Place] = []
    if settings.file:
        found.append(AnchorFile(Path(settings.file)))
    if settings.command:
        found.append(AnchorCommand(settings.command, settings.command_timeout))
    if settings.journal:
        found.append(AnchorJournal(settings.journal))
    return found


def line(signed: Signed) -> str:
    """Return a checkpoint as one line of JSON: when it was made (milliseconds since 1970), how many leaves, and the note."""
    return json.dumps({"at": signed.made_at, "size": signed.size, "note": signed.note}, separators=(",", ":"))


class AnchorFile:
    """A file that gets a line for each checkpoint, and is never read back, moved or shortened by us."""

    name = "file"

    def __init__(self, path: Path) -> None:
        """Append to ``path``, which is made (0600) where it is absent."""
        self._path = path

    async def write(self, signed: Signed) -> None:
        """Append a line and make it durable. Raises ``OSError``."""
        await asyncio.to_thread(self._append, f"{line(signed)}\n".encode())

    def _append(self, text: bytes) -> None:
        # O_NONBLOCK: to open a pipe would wait for whoever reads it.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(f"{self._path} is not a regular file")
            if found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n":
                text = b"\n" + text  # the disk was full in the middle of a line
            if os.write(descriptor, text) != len(text):
                raise OSError(f"{self._path} did not take the whole line")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not found.st_size:
            sync_directory(self._path.parent)


class AnchorCommand:
    """A command that takes the note on its standard input and ends with 0 once the note is where it shall be."""

    name = "command"

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        """Run ``command``, without a shell, for at most so many seconds."""
        self._command = command
        self._seconds = seconds

    async def write(self, signed: Signed) -> None:
        """Run it, with PATH and HOME and nothing else of our environment. Raises ``OSError`` unless it ends with 0 in time."""
        running = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in HANDED_ON if name in os.environ},
            cwd="/",
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._seconds):
                await running.communicate(signed.note.encode())
        except TimeoutError:
            raise OSError(f"the command did not end within {self._seconds:g} s") from None
        finally:
            if running.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
                await running.wait()
        if running.returncode:
            raise OSError(f"the command ended with {running.returncode}")


class AnchorJournal:
    """A datagram socket of syslog(3), on which systemd's journal listens too: each checkpoint is one message."""

    name = "journal"

    def __init__(self, path: str) -> None:
        """Send to the socket at ``path``."""
        self._path = path

    async def write(self, signed: Signed) -> None:
        """Send a message. Raises ``OSError`` where nobody takes it; whether it is kept is for the daemon to say."""
        when = time.strftime("%b %e %H:%M:%S")
        await asyncio.to_thread(self._send, f"<{PRIORITY}>{when} {TAG}[{os.getpid()}]: {line(signed)}".encode())

    def _send(self, message: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.settimeout(JOURNAL_SECONDS)
            sending.connect(self._path)
            sending.send(message)
