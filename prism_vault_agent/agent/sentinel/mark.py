"""The mark in the state directory that says: of what this agent gives out nothing is to stay when it has ended.

Who ends in order takes it away. Whoever finds it clears what was left: the agent's sentinel, the next agent, or
``agent --clear``, one at a time, by a lock that is held for moments. ``sentinel`` in the state directory, one JSON object, mode
0600.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prism_vault_agent.agent.kept import keep
from prism_vault_agent.agent.leases.child import boot
from prism_vault_agent.agent.trees.sweep import look
from prism_vault_agent.audit.journal import private

if TYPE_CHECKING:
    from collections.abc import Iterator

# A process by its number and its start, in clock ticks since boot.
Who = tuple[int, int]
NOBODY: Final = (0, 0)
NAME: Final = "sentinel"


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose releases are not to stay, who is to see to that, and whether that one has begun."""

    agent: Who
    sentinel: Who = NOBODY
    acting: bool = False


@contextlib.contextmanager
def locked(state: str) -> Iterator[None]:
    """Be the only one who reads and changes the mark; waits for others. Raises ``OSError``."""
    descriptor = private(os.path.join(state, f"{NAME}.lock"), os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read(state: str) -> Mark | None:
    """Return the mark; None where there is none, or the host has been started since."""
    try:
        with open(os.path.join(state, NAME), encoding="utf-8") as file:
            plain = json.load(file)
        if plain.pop("boot") != boot():
            return None
        return Mark(_who(plain["agent"]), _who(plain["sentinel"]), bool(plain["acting"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(state: str, mark: Mark) -> None:
    """Put a mark in place of the one before. Raises ``OSError`` and changes nothing."""
    keep(os.path.join(state, NAME), json.dumps({**dataclasses.asdict(mark), "boot": boot()}))


def drop(state: str) -> None:
    """Take the mark away: nothing is left."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(state, NAME))


def who(pid: int) -> Who:
    """Return a process that lives; ``NOBODY`` where it has ended."""
    found = look(pid)
    return NOBODY if found is None else (pid, found.started)


def _who(plain: list[int]) -> Who:
    pid, started = plain
    return int(pid), int(started)
