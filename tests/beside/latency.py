"""How long it takes from a write at the server to a consumer that has the new value: a file, a new process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.support.signalled import order

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.beside.contenders import Ours, Place, Theirs

PATIENCE = 60.0


def push(at: Place, of: Ours) -> None:
    """Write, and order the rotation at central."""
    of.write()
    order(at.central, "rotations", scope=of.path)


def reached(write: Callable[[], object], *there: Callable[[], bool], patience: float = PATIENCE) -> list[float]:
    """Return the seconds from before a write until each of these was so for the first time."""
    found: dict[int, float] = {}
    began = time.monotonic()
    write()
    while len(found) < len(there):
        found |= {n: time.monotonic() - began for n, each in enumerate(there) if n not in found and each()}
        assert time.monotonic() < began + patience, f"{len(found)} of {len(there)} consumers have the new value"
        time.sleep(0.001)
    return [found[number] for number in range(len(there))]


def to_file(of: Ours | Theirs) -> Callable[[], bool]:
    """Return whether the file has the newest value."""
    return lambda: of.rendered(of.file)
