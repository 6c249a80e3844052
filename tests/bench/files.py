"""What files cost below the sink: ``python -m tests.bench.files [ROUNDS]``.

1,000 files rendered again unchanged, and all rotated at once, as one scope and as 1,000 scopes of one file each, against a loop
that writes a temporary file and renames it (neither private, nor switched together, nor safe from links).
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prism_vault_agent.sink.generation import Content, stage, switch

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = 1_000
LENGTH = 200
GOAL_SECONDS = 2.0


def main() -> None:
    """Run and print the table and the goal."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    top = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm"))  # a tmpfs, as the agent's
    (top / "place/.staged").mkdir(parents=True, mode=0o700)
    (top / "plain").mkdir()
    place = os.open(top / "place", os.O_RDONLY | os.O_DIRECTORY)
    steps: dict[str, Callable[[int], None]] = {
        "write and rename": lambda number: plain(top / "plain", number),
        "one scope, rotated": lambda number: one_scope(place, number),
        "one scope, unchanged": lambda number: one_scope(place, number),
        "1,000 scopes, rotated": lambda number: many_scopes(place, number),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    try:
        for number in range(rounds + 1):
            for name, step in steps.items():
                before = time.perf_counter()
                step(number)
                times[name].append(time.perf_counter() - before)
    finally:
        os.close(place)
        shutil.rmtree(top)
    middle = {name: statistics.median(each[1:]) for name, each in times.items()}
    floor = middle["write and rename"]
    for name, seconds in middle.items():
        print(f"{name:<24} {seconds * 1000:8.0f} ms   {seconds / floor:5.1f} times the floor")
    took = middle["1,000 scopes, rotated"]
    print(f"\n1,000 files rotated: {took:.2f} s in the sink (goal, the provider included: {GOAL_SECONDS} s)")


def contents(number: int) -> list[Content]:
    """Return the files of a generation."""
    content = f"{number:0{LENGTH}}".encode()
    return [Content(f"FILE{each}", content, os.geteuid(), os.getegid(), 0o400) for each in range(FILES)]


def one_scope(place: int, number: int) -> None:
    """Make all of a generation one scope's."""
    switch(place, "all", stage(place, "all", contents(number), {}))


def many_scopes(place: int, number: int) -> None:
    """Make each of them a scope of its own."""
    for each in contents(number):
        switch(place, each.path, stage(place, each.path, [each], {}))


def plain(directory: Path, number: int) -> None:
    """Write the same bytes as a simple program does."""
    for each in contents(number):
        new = directory / f"{each.path}.new"
        new.write_bytes(each.content)
        new.rename(directory / each.path)


if __name__ == "__main__":
    main()
