"""Events that central has not taken yet, kept durably in one file so that no clearing goes unrecorded.

The file holds one JSON line for each event that waits and a line ``{"dropped": id}`` for each that has since arrived; it is
emptied when nothing waits, and written anew when most of it has arrived, so that it is never much larger than twice what waits.
How much waits is bounded by the outbox. Each line is written with a line end before it, so that one that a crash or a full disk
has torn spoils no other. Written with fsync; read once, at start. Mode 0600; it holds names and paths, never a value.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING, BinaryIO, Final

import structlog

from prism_vault_agent.errors import CannotCreate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prism_vault_agent.audit.event import Fields

log = structlog.get_logger()

# Bytes under which the file is left as it is, however little of it still waits.
WORTH_REWRITING: Final = 1024 * 1024


class Journal:
    """The file of events that wait."""

    def __init__(self, path: str, what: str = "audit records") -> None:
        """Keep events in ``path``, whose directory exists; ``what`` is how an error calls them."""
        self._path = path
        self._what = what
        self._waiting: dict[str, bytes] = {}
        self._size = 0  # of the file, in bytes, as far as we have written it
        # Who waits goes first come, first served; a thread whose waiter was cancelled goes on, and has the file to its end.
        self._in_order = asyncio.Lock()
        self._one_at_a_time = threading.Lock()

    async def load(self) -> list[Fields]:
        """Return the events that an earlier agent could not send, in order. Raises ``CannotCreate`` for an unusable file."""
        return await asyncio.to_thread(self._load)

    async def keep(self, *events: Fields) -> None:
        """Keep events durably, at the price of one. Raises ``CannotCreate`` where the disk does not take them."""
        lines = {str(fields["event_id"]): line(fields) for fields in events}
        async with self._in_order:
            await asyncio.to_thread(self._keep, lines)

    async def drop(self, *event_ids: str) -> None:
        """Forget events that central has; an empty journal is an empty file. Raises as :meth:`keep`."""
        async with self._in_order:
            await asyncio.to_thread(self._drop, event_ids)

    def _load(self) -> list[Fields]:
        found: dict[str, Fields] = {}
        damaged = 0
        try:
            with open(self._path, encoding="utf-8", errors="replace", opener=private) as lines:
                for each in lines:
                    if each != "\n" and not take(found, each):
                        damaged += 1
                self._size = os.fstat(lines.fileno()).st_size
            sync_directory(self._path)
        except OSError as error:
            raise self._cannot(error) from None
        if damaged:
            log.warning("journal.damaged", lines=damaged, message="a crash may tear a line, whose event was not kept yet")
        self._waiting = {event_id: line(fields) for event_id, fields in found.items()}
        return list(found.values())

    def _keep(self, lines: dict[str, bytes]) -> None:
        with self._one_at_a_time:
            self._append(b"".join(lines.values()))
            self._waiting.update(lines)

    def _drop(self, event_ids: Iterable[str]) -> None:
        with self._one_at_a_time:
            for event_id in event_ids:
                self._waiting.pop(event_id, None)
            if self._waiting:
                self._append(b"".join(line({"dropped": event_id}) for event_id in event_ids))
                return
            try:
                os.truncate(self._path, 0)
            except OSError as error:
                raise self._cannot(error) from None
            self._size = 0

    def _append(self, lines: bytes) -> None:
        if overgrown(self._size + len(lines), self._waiting.values()):
            self._rewrite()
        try:
            with open(self._path, "ab", opener=private) as file:
                _write_durably(file, lines)
        except OSError as error:
            raise self._cannot(error) from None
        self._size += len(lines)

    def _rewrite(self) -> None:
        """Put a file of what waits in the place of the old one, which stays as it is where that cannot be done."""
        new = f"{self._path}.new"
        content = b"".join(self._waiting.values())
        with contextlib.suppress(OSError):
            with open(new, "wb", opener=private) as file:
                _write_durably(file, content)
            os.replace(new, self._path)
            self._size = len(content)
            sync_directory(self._path)

    def _cannot(self, error: OSError) -> CannotCreate:
        return CannotCreate(
            f"cannot keep {self._what} in {self._path}: {os.strerror(error.errno or 0)}", mend="make room or mend its directory"
        )


def overgrown(size: int, waiting: Iterable[bytes]) -> bool:
    """Tell whether a file of ``size`` bytes is to be written anew: it is large, and most of it does not wait any more."""
    return size > WORTH_REWRITING and size > 2 * sum(map(len, waiting))


def line(fields: Fields) -> bytes:
    """Return the line of an event."""
    return b"\n" + json.dumps(fields).encode()


def take(found: dict[str, Fields], written: str) -> bool:
    """Add to ``found`` what one line says; tell whether it says anything."""
    try:
        fields = json.loads(written)
        if "dropped" in fields:
            found.pop(fields["dropped"], None)
        else:
            found[fields["event_id"]] = fields
    except (ValueError, KeyError, TypeError):
        return False
    return True


def private(path: str, flags: int) -> int:
    """Open a file that is nobody else's, and no link; for ``open(..., opener=...)``."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _write_durably(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def sync_directory(path: str) -> None:
    """Make the file's name durable too."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
