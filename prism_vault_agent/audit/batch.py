"""What waits, how much of it may, and what travels together: events sealed as the next ones of their chain."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Final

from prism_vault_agent.audit.answers import Answer
from prism_vault_agent.audit.event import Chain, Fields

LARGEST_BATCH: Final = 128
# Bytes of events in a batch; central takes 4 MiB, and a batch that it does not take would stand in the way for ever.
LARGEST_CONTENT: Final = 2 * 1024 * 1024
# How many events, and bytes of them, wait before nothing more is reserved.
MOST_WAITING: Final = 10_000
LARGEST_WAITING: Final = 16 * 1024 * 1024
# The kinds that a caller, or an editor of the configuration, can cause without end.
ENDLESS: Final = frozenset(("denied", "admin"))


@dataclass(slots=True, eq=False)
class Entry:
    """One event on its way. ``answer`` is absent where nobody waits; ``then`` is told of the answer in that case.

    ``safe`` is called when the event can no longer be lost: the journal or central has it.

    ``size`` is about how many bytes it takes, here and in the journal.
    """

    fields: Fields
    answer: asyncio.Future[Answer] | None = None
    then: Callable[[Answer], None] | None = None
    durable: bool = False
    kept: bool = False
    safe: Callable[[], None] | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        """Measure it once."""
        self.size = len(json.dumps(self.fields))

    def is_safe(self) -> None:
        """Tell whoever wants to know, once."""
        told, self.safe = self.safe, None
        if told is not None:
            told()

    @property
    def given_up(self) -> bool:
        """Whether whoever waited has gone."""
        return self.answer is not None and self.answer.done()


Batch = tuple[list[Entry], list[bytes]]


def full(waiting: Collection[Entry]) -> bool:
    """Tell whether so much waits that nothing more may be reserved."""
    return len(waiting) >= MOST_WAITING or sum(entry.size for entry in waiting) >= LARGEST_WAITING


def seal(chain: Chain, waiting: deque[Entry]) -> Batch | None:
    """Take what waits and seal it as the next events of ``chain``, which does not move; None where nothing waits.

    Whoever gave up before its event was sent is left out.
    """
    entries: list[Entry] = []
    bodies: list[bytes] = []
    size = 0
    tentative = replace(chain)
    while waiting and len(entries) < LARGEST_BATCH and size < LARGEST_CONTENT:
        entry = waiting.popleft()
        if entry.given_up:
            continue
        body = tentative.seal(entry.fields)
        tentative.accept(body)
        entries.append(entry)
        bodies.append(body)
        size += len(body)
    return (entries, bodies) if entries else None
