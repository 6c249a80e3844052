"""What is in the memory of other processes (root's to see), and how much of it there is."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

PIECE = 4 * 1024 * 1024
UNREADABLE = ("[vvar]", "[vvar_vclock]", "[vsyscall]")


@dataclass(frozen=True)
class Footprint:
    """Memory in KiB, of ``/proc/PID/smaps_rollup``: resident, its fair share of what is shared, and what is its own."""

    rss: int
    pss: int
    uss: int


def footprint(pid: int) -> Footprint:
    """Return how much memory a process takes."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0])
    return Footprint(fields["Rss"], fields["Pss"], fields["Private_Clean"] + fields["Private_Dirty"])


def forms(value: str) -> list[bytes]:
    """Return a value as memory may hold it: raw, in the interpreter's wider strings, and as base64 at each offset."""
    raw = value.encode()
    encoded = [base64.b64encode(b"x" * before + raw)[4:-4] for before in range(3)]
    return [raw, value.encode("utf-16-le"), value.encode("utf-32-le"), raw.hex().encode(), *encoded]


def copies(pid: int, value: str) -> int:
    """Return how many copies of ``value``, in any form, are in the readable memory of a process."""
    wanted = forms(value)
    found = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            if rights.startswith("r") and not line.rstrip().endswith(UNREADABLE):
                start, end = (int(each, 16) for each in span.split("-"))
                found += _count(memory.fileno(), start, end, wanted)
    return found


def _count(memory: int, start: int, end: int, wanted: list[bytes]) -> int:
    """Return how often one of ``wanted`` is between two addresses. What is not readable after all (a device) has none."""
    overlap = max(map(len, wanted)) - 1
    found = 0
    while start < end:
        try:
            piece = os.pread(memory, min(PIECE + overlap, end - start), start)
        except OSError:
            return found
        for form in wanted:
            at = piece.find(form)
            while 0 <= at < PIECE:  # one that starts within the overlap is counted with the next piece
                found += 1
                at = piece.find(form, at + 1)
        start += PIECE
    return found
