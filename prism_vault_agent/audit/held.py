"""What a host keeps of a log whose witness it is: the last checkpoint that it accepted, and evidence where it refused one.

Two files for each log (its name is hashed into theirs) in the agent's own directory, each written whole or not at all:

* ``checkpoint-XXXXXXXX.json``: ``note``, the signed checkpoint; ``kept_at``, milliseconds since 1970; ``row``, the newest row of
  ours that central had signed for, as its receipt;
* ``evidence-XXXXXXXX.json``: ``found``, in words; ``keys``; ``held``, what the other file held; ``given``, central's answer;
  ``row``, the receipt of the row that is missing. While it is there nothing is released.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prism_vault_agent.audit.our_rows import Row
from prism_vault_agent.audit.receipts import Promise
from prism_vault_agent.errors import CannotCreate, IntegrityError
from prism_vault_agent.proof.note import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Held:
    """The last accepted checkpoint with its note, none before the first one; and the newest row of ours at that time."""

    checkpoint: Checkpoint | None = None
    note: str = ""
    row: Row | None = None
    kept_at: int = 0

    def plain(self) -> dict[str, Any]:
        """Return it as it is written."""
        row = {"n": self.row.n, "receipt": self.row.promise.plain()} if self.row else None
        return {"note": self.note, "row": row, "kept_at": self.kept_at}


class WitnessFiles:
    """The two files of the log ``origin``."""

    def __init__(self, directory: str, origin: str) -> None:
        """Keep them in ``directory``, which exists and is ours alone."""
        name = hashlib.sha256(origin.encode()).hexdigest()[:8]
        self._origin = origin
        self.checkpoint = os.path.join(directory, f"checkpoint-{name}.json")
        self.evidence = os.path.join(directory, f"evidence-{name}.json")

    def load(self) -> Held:
        """Return what is held. Raises ``IntegrityError`` for a damaged file, ``CannotCreate`` for one that cannot be read."""
        content = self._read(self.checkpoint)
        if content is None:
            return Held()
        try:
            plain = json.loads(content)
            note = plain["note"]
            checkpoint = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n") if note else None
            held = Held(checkpoint, note, _row(plain["row"]), int(plain["kept_at"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IntegrityError):
            raise IntegrityError(f"{self.checkpoint}, where this host keeps what it knows of the log, is damaged") from None
        if checkpoint is not None and checkpoint.origin != self._origin:
            raise IntegrityError(f"{self.checkpoint} is about another log than its name says")
        return held

    def keep(self, held: Held) -> None:
        """Keep this durably in place of what was held. Raises ``CannotCreate``."""
        self._write(self.checkpoint, held.plain() | {"kept_at": held.kept_at or _now()})

    def accused(self) -> str:
        """Return what was found against the log; empty where nothing was. Evidence that cannot be read is evidence."""
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError, CannotCreate):
            content = self._read(self.evidence)
            return "" if content is None else str(json.loads(content)["found"])
        # In a directory that is another user's there may be anything: that is the other user's affair.
        return f"there is evidence in {self.evidence}, which cannot be read" if os.path.lexists(self.evidence) else ""

    def accuse(self, evidence: Mapping[str, Any]) -> None:
        """Keep evidence durably, beside what is held. Raises ``CannotCreate``."""
        held = None
        with contextlib.suppress(CannotCreate):
            held = self._read(self.checkpoint)
        self._write(self.evidence, {**evidence, "held": held, "found_at": _now()})

    def forget(self) -> list[str]:
        """Set what is held and the evidence aside, under names with the time; return these. Raises ``CannotCreate``."""
        aside: list[str] = []
        for path in (self.checkpoint, self.evidence):
            with self._told(path), contextlib.suppress(FileNotFoundError):
                new = f"{path.removesuffix('.json')}.{_now()}.json"
                os.rename(path, new)
                aside.append(new)
        return aside

    def _read(self, path: str) -> str | None:
        with self._told(path):
            try:
                with open(path, encoding="utf-8", errors="replace", opener=_no_follow) as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def _write(self, path: str, plain: Mapping[str, Any]) -> None:
        new = f"{path}.new"
        with self._told(path):
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(plain, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
            directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    @staticmethod
    @contextlib.contextmanager
    def _told(path: str) -> Any:
        try:
            yield
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise CannotCreate(f"cannot keep {path}: {why}", mend="make room, or mend its directory") from None


def _row(plain: Any) -> Row | None:
    if plain is None:
        return None
    receipt = plain["receipt"]
    rows = tuple((int(n), bytes.fromhex(leaf)) for n, leaf in receipt["rows"])
    return Row(int(plain["n"]), dict(rows)[plain["n"]], Promise(receipt["origin"], receipt["at"], receipt["signature"], rows))


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _now() -> int:
    return time.time_ns() // 1_000_000
