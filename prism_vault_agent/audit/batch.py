"""What travels together: events that wait, sealed as the next ones of their chain."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from prism_vault_agent.audit.answers import Answer
from prism_vault_agent.audit.event import Chain, Fields

LARGEST_BATCH: Final = 128
# Bytes of events in a batch; central takes 4 MiB, and a batch that it does not take would stand in the way for ever.
LARGEST_CONTENT: Final = 2 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Entry:
    """One event on its way. ``answer`` is absent where nobody waits; ``then`` is told of the answer in that case."""

    fields: Fields
    answer: asyncio.Future[Answer] | None = None
    then: Callable[[Answer], None] | None = None
    durable: bool = False
    kept: bool = False

    @property
    def given_up(self) -> bool:
        """Whether whoever waited has gone."""
        return self.answer is not None and self.answer.done()


Batch = tuple[list[Entry], list[bytes]]


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
