"""Events that central has not taken yet, kept durably in one file so that no clearing goes unrecorded.

The file holds one JSON line for each event that waits and a line ``{"dropped": id}`` for each that has since arrived; it is
emptied when nothing waits. Written with fsync; read once, at start. Mode 0600; it holds names and paths, never a value.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import aiofiles
import aiofiles.os

from prism_vault_agent.errors import CannotCreate

if TYPE_CHECKING:
    from prism_vault_agent.audit.event import Fields


class Journal:
    """The file of events that wait."""

    def __init__(self, path: str) -> None:
        """Keep events in ``path``, whose directory exists."""
        self._path = path
        self._waiting: set[str] = set()

    async def load(self) -> list[Fields]:
        """Return the events that an earlier agent could not send, in order."""
        if not await aiofiles.os.path.exists(self._path):
            return []
        found: dict[str, Fields] = {}
        async with aiofiles.open(self._path, encoding="utf-8") as lines:
            async for line in lines:
                try:
                    fields = json.loads(line)
                except ValueError:
                    continue  # the last line of a crash may be torn; its event was never confirmed as kept
                if "dropped" in fields:
                    found.pop(fields["dropped"], None)
                else:
                    found[fields["event_id"]] = fields
        self._waiting = set(found)
        return list(found.values())

    async def keep(self, fields: Fields) -> None:
        """Keep one event durably. Raises ``CannotCreate`` where the disk does not take it."""
        self._waiting.add(str(fields["event_id"]))
        await self._append(fields)

    async def drop(self, event_id: str) -> None:
        """Forget an event that central has; an empty journal is an empty file."""
        self._waiting.discard(event_id)
        if self._waiting:
            await self._append({"dropped": event_id})
        else:
            await aiofiles.os.unlink(self._path)

    async def _append(self, fields: Fields) -> None:
        try:
            async with aiofiles.open(self._path, "a", encoding="utf-8", opener=_private) as file:
                await file.write(json.dumps(fields) + "\n")
                await file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CannotCreate(
                f"cannot keep an audit record in {self._path}: {os.strerror(error.errno or 0)}",
                mend="make room or mend its directory",
            ) from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
