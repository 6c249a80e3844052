"""Which bodies a purge or the retention drops: of a project, of a run, or from before a time; a bounded number at once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import func, select

from prism_vault_agent.central.log.drop import Doomed, Dropped, drop
from prism_vault_agent.central.log.terms import term
from prism_vault_agent.central.storage import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from prism_vault_agent.audit.event import Fields
    from prism_vault_agent.central.log.store import Store

MOST_FOUND: Final = 200
MOST_LOOKED_AT: Final = 1_000
event: Final = schema.event


@dataclass(frozen=True, slots=True)
class Selection:
    """What is meant: all that is given must be so. ``before`` is a time in milliseconds since 1970, by central's clock."""

    project: str | None = None
    run_ref: str | None = None
    before: int | None = None

    def told(self) -> Fields:
        """Return what the event of a purge says about it: a run's name is a person's in places, so only its hash."""
        run = {"run_ref_sha256": hashlib.sha256(self.run_ref.encode()).hexdigest()} if self.run_ref else {}
        return {"project": self.project, "before": self.before, **run}


@dataclass(frozen=True, slots=True)
class Found:
    """Events that are meant, and behind which index to go on, or None at the end."""

    doomed: Doomed
    next: int | None


def purge(store: Store, engine: Engine, selection: Selection, why: Fields, anchored: int | None = None) -> Iterator[Dropped]:
    """Drop the bodies of all that is meant, and yield what each transaction did; ``anchored`` as ``drop`` has it.

    Raises ``StorageError``.
    """
    after: int | None = 0
    while after is not None:
        found = find(engine, selection, after)
        if found.doomed.numbers:
            work = partial(drop, doomed=found.doomed, why={**selection.told(), **why}, anchored=anchored)
            yield cast("Dropped", store.run([work])[0])
        after = found.next


def find(engine: Engine, selection: Selection, after: int) -> Found:
    """Return the next events behind index ``after`` that have a body and are meant; a run or project takes whole reservations."""
    named = [(what, name) for what, name in (("run_ref", selection.run_ref), ("project", selection.project)) if name]
    with engine.connect() as connection:
        if named:
            rows_of = select(event.c.n, event.c.reservation_id, event.c.received_at, event.c.body)
            by_term = rows_of.join(schema.term, schema.term.c.n == event.c.n).where(schema.term.c.term == term(*named[0]))
            rows = connection.execute(by_term.where(event.c.n > after).order_by(event.c.n).limit(MOST_FOUND)).all()
            following = rows[-1].n if len(rows) == MOST_FOUND else None
            # The index holds numbers for names: the names themselves decide.
            meant = [row for row in rows if row.body and _is(json.loads(row.body), named)]
            reservations = tuple({row.reservation_id.hex() for row in meant})
            return Found(Doomed([row.n for row in meant], reservations), following)
        end = connection.execute(select(func.max(event.c.n))).scalar() or 0
        window = select(event.c.n).where(event.c.n > after, event.c.n <= after + MOST_LOOKED_AT, event.c.body != b"")
        numbers = connection.execute(window.where(event.c.received_at < selection.before)).scalars().all()
    return Found(Doomed(numbers), after + MOST_LOOKED_AT if after + MOST_LOOKED_AT < end else None)


def _is(fields: dict[str, Any], named: list[tuple[str, str]]) -> bool:
    return all(fields.get(what) == name for what, name in named)
