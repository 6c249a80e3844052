"""What a power cut leaves of a process's files: every write and sync of a run, recorded by strace, and any moment of it rebuilt.

A write that was not synced may be on the disk, not be there, or be there in part, by sectors of 512 bytes, in any order.
What the directory says is taken to be durable. Sources: fsync(2); SQLite, "Atomic Commit", section 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

SECTOR = 512
LONGEST_WRITE = 1 << 20
_CALL = re.compile(r"^(?P<pid>\d+) +(?P<at>\d+\.\d+) (?P<name>\w+)\((?P<fd>\d+)<(?P<path>[^>]+)>(?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<pid>\d+) +(?P<at>\d+\.\d+) <\.\.\. (?P<name>\w+) resumed>")
_WRITE = re.compile(r'^, "(?P<data>(?:\\x[0-9a-f]{2})*)", \d+, (?P<offset>\d+)')
_SIZE = re.compile(r"^, (?P<size>\d+)")


def recorded(trace: Path) -> list[str]:
    """Return the words to put before a command so that its file writes are in ``trace``; it keeps its process id."""
    calls = "pwrite64,write,fdatasync,fsync,ftruncate"
    return [
        "/usr/bin/strace",
        "-D",
        "-f",
        "-y",
        "-xx",
        "-ttt",
        "-s",
        str(LONGEST_WRITE),
        "-e",
        f"trace={calls}",
        "-o",
        str(trace),
    ]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a process did to a file, when (seconds since 1970). ``data`` is None for a sync, or for a new size."""

    at: float
    path: str
    offset: int = 0
    data: bytes | None = None
    size: int | None = None


def steps(trace: Path, paths: set[str]) -> list[Step]:
    """Return what was done to the files in ``paths``, in order; waits until the traced process has ended."""
    wait_until(lambda: "+++ " in trace.read_text(errors="replace")[-200:], timeout=30)
    return list(_parse(trace.read_text().splitlines(), paths))


def _parse(lines: list[str], paths: set[str]) -> Iterator[Step]:
    syncing: dict[str, str] = {}
    for line in lines:
        if (resumed := _RESUMED.match(line)) is not None:
            if resumed["name"] in ("fdatasync", "fsync") and (synced := syncing.pop(resumed["pid"], None)) is not None:
                yield Step(float(resumed["at"]), synced)
            continue
        call = _CALL.match(line)
        if call is None or (path := _bytes(call["path"]).decode()) not in paths:
            continue
        at = float(call["at"])
        if call["name"] in ("fdatasync", "fsync"):
            if "unfinished" in call["rest"]:
                syncing[call["pid"]] = path
            else:
                yield Step(at, path)
        elif call["name"] == "ftruncate":
            size = _SIZE.match(call["rest"])
            assert size is not None, line
            yield Step(at, path, size=int(size["size"]))
        else:
            write = _WRITE.match(call["rest"])
            assert write is not None, line[:300]
            yield Step(at, path, int(write["offset"]), _bytes(write["data"]))


def _bytes(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.replace("\\x", ""))


@dataclass(slots=True)
class Disk:
    """Files as they are surely on the disk, and the steps since their last sync."""

    sure: dict[str, bytearray]
    pending: dict[str, list[Step]] = field(default_factory=dict)

    def do(self, step: Step) -> None:
        """Follow one step."""
        waiting = self.pending.setdefault(step.path, [])
        if step.data is not None or step.size is not None:
            waiting.append(step)
            return
        for each in waiting:
            _apply(self.sure.setdefault(step.path, bytearray()), each)
        waiting.clear()

    def whole(self) -> dict[str, bytes]:
        """Return the files as the process sees them."""
        return self._with(_apply)

    def cut(self, chance: random.Random) -> dict[str, bytes]:
        """Return the files as a power cut may leave them now."""
        kept = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        return self._with(lambda image, step: _apply_some(image, step, chance, kept))

    def _with(self, apply: Callable[[bytearray, Step], None]) -> dict[str, bytes]:
        found = {path: bytearray(image) for path, image in self.sure.items()}
        for path, waiting in self.pending.items():
            for step in waiting:
                apply(found.setdefault(path, bytearray()), step)
        return {path: bytes(image) for path, image in found.items()}


def _apply(image: bytearray, step: Step) -> None:
    if step.size is not None:
        del image[step.size :]
        image.extend(bytes(step.size - len(image)))
        return
    assert step.data is not None
    image.extend(bytes(max(0, step.offset + len(step.data) - len(image))))
    image[step.offset : step.offset + len(step.data)] = step.data


def _apply_some(image: bytearray, step: Step, chance: random.Random, kept: float) -> None:
    """Apply the sectors of a write of which ``kept`` in a hundredth stay, each for itself; a new size as a whole or not."""
    if step.data is None:
        if chance.random() < kept:
            _apply(image, step)
        return
    at = step.offset
    while at < step.offset + len(step.data):
        end = min((at // SECTOR + 1) * SECTOR, step.offset + len(step.data))
        if chance.random() < kept:
            _apply(image, Step(step.at, step.path, at, step.data[at - step.offset : end - step.offset]))
        at = end
