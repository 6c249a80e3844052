"""What the next agent is to find in the state directory: a small text, or records of what is not over yet.

Written at once and without an fsync, which nobody has to wait for: it need outlive the agent, not the host, whose processes end
with it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.audit import journal
from prism_vault_agent.audit.journal import private

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prism_vault_agent.audit.event import Fields

log = structlog.get_logger()


def keep(path: str, text: str) -> None:
    """Put ``text`` in place of what the file at ``path`` has, whole or not at all. Raises ``OSError`` and changes nothing."""
    draft = f"{path}.new"
    try:
        with open(draft, "w", encoding="utf-8", opener=private) as file:
            file.write(text)
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


class Kept:
    """Records in the file ``path``, each by its ``event_id`` from when it is kept until it is dropped. Mode 0600."""

    def __init__(self, path: str) -> None:
        """Nothing is read yet."""
        self.path = path
        self._waiting: dict[str, bytes] = {}
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of what is kept, oldest first."""
        return iter(list(self._waiting))

    def __contains__(self, name: object) -> bool:
        """Tell whether a record of this id is kept."""
        return name in self._waiting

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._waiting)

    def load(self) -> list[Fields]:
        """Return what an earlier agent kept and did not drop; from now on it is kept here."""
        found: dict[str, Fields] = {}
        with contextlib.suppress(FileNotFoundError), open(self.path, encoding="utf-8", errors="replace") as lines:
            self._size = os.fstat(lines.fileno()).st_size
            damaged = sum(not journal.take(found, line) for line in lines if line != "\n")
            if damaged:
                log.warning("kept.damaged", path=self.path, lines=damaged)
        self._waiting = {name: journal.line(fields) for name, fields in found.items()}
        return list(found.values())

    def keep(self, fields: Fields) -> None:
        """Keep a record. Raises ``OSError``, and has not kept it then."""
        line = journal.line(fields)
        self._append(line)
        self._waiting[str(fields["event_id"])] = line

    def drop(self, name: str) -> None:
        """Forget what is over; where the disk does not take that, the next agent finds it out."""
        if self._waiting.pop(name, None) is None:
            return
        try:
            if self._waiting:
                self._append(journal.line({"dropped": name}))
            else:
                os.truncate(self.path, 0)
                self._size = 0
        except OSError as error:
            log.error("kept.not_dropped", path=self.path, errno=error.errno)

    def _append(self, line: bytes) -> None:
        """Write a line; a file that is mostly of what is over is written anew."""
        if journal.overgrown(self._size + len(line), self._waiting.values()):
            line = b"".join(self._waiting.values()) + line
            with open(f"{self.path}.new", "wb", opener=private) as file:
                file.write(line)
            os.replace(f"{self.path}.new", self.path)
            self._size = len(line)
            return
        with open(self.path, "ab", buffering=0, opener=private) as file:
            file.write(line)
        self._size += len(line)
