"""Where the log stands: how large its tree is, what its newest checkpoint is about, and what still waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from prism_vault_agent.central.storage.schema import checkpoint, event, leaf

if TYPE_CHECKING:
    from sqlalchemy import Engine


class Standing(NamedTuple):
    """The log as it was read. Times are milliseconds since 1970, by the clock of the replica that wrote the row.

    ``waiting_since`` is when the oldest event that no checkpoint is about was received; None where there is none.
    """

    leaves: int
    checkpoint: int
    made_at: int | None
    waiting_since: int | None


def standing(engine: Engine) -> Standing:
    """Return where the log stands. Raises SQLAlchemy's errors."""
    with engine.connect() as connection:
        newest = connection.execute(
            select(checkpoint.c.size, checkpoint.c.floor, checkpoint.c.made_at).order_by(checkpoint.c.size.desc()).limit(1)
        ).first()
        size, floor, made_at = newest or (0, 0, None)
        leaves = connection.execute(select(func.coalesce(func.max(leaf.c.idx) + 1, 0))).scalar_one()
        # Events with a leaf beyond the checkpoint, and events without one; every event up to the floor has its leaf.
        placed = select(event.c.received_at).join(leaf, leaf.c.n == event.c.n).where(leaf.c.idx == size)
        unplaced = (
            select(event.c.received_at)
            .where(event.c.n > floor, ~select(leaf.c.idx).where(leaf.c.n == event.c.n).exists())
            .order_by(event.c.n)
            .limit(1)
        )
        waiting = [found for question in (placed, unplaced) if (found := connection.execute(question).scalar()) is not None]
    return Standing(leaves, size, made_at, min(waiting, default=None))
