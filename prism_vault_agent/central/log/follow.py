"""The log in its final order, page by page, also while it grows: how it is followed, copied and verified from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from prism_vault_agent.central.log.plain import plain_leaf
from prism_vault_agent.central.log.terms import term
from prism_vault_agent.central.storage import schema

if TYPE_CHECKING:
    from sqlalchemy import Engine, Select

    from prism_vault_agent.central.access.identity import Identity

MOST_LOOKED_AT: Final = 20_000
_SIZE: Final = select(func.coalesce(func.max(schema.leaf.c.idx) + 1, 0))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows in the order of their leaves, from which leaf to go on, and how many leaves there are."""

    rows: list[dict[str, Any]]
    next: int
    size: int


def follow(engine: Engine, identity: Identity, first: int, limit: int) -> Stretch:
    """Return up to ``limit`` rows from leaf ``first`` on that ``identity`` may see: of its projects, or all of them."""
    with engine.connect() as connection:
        size: int = connection.execute(_SIZE).scalar_one()
        looked = min(first + MOST_LOOKED_AT, size)
        rows = connection.execute(_rows(identity, first, looked).order_by(schema.leaf.c.idx).limit(limit)).all()
    if len(rows) == limit:
        looked = rows[-1].idx + 1
    return Stretch([plain_leaf(row) for row in rows], max(looked, first), size)


def newest(engine: Engine, identity: Identity, count: int) -> Stretch:
    """Return the last ``count`` rows that ``identity`` may see, of the newest 20,000."""
    with engine.connect() as connection:
        size: int = connection.execute(_SIZE).scalar_one()
        rows = connection.execute(
            _rows(identity, size - MOST_LOOKED_AT, size).order_by(schema.leaf.c.idx.desc()).limit(count)
        ).all()
    return Stretch([plain_leaf(row) for row in reversed(rows)], size, size)


def _rows(identity: Identity, first: int, end: int) -> Select[Any]:
    leaf, event, dropped, terms = schema.leaf, schema.event, schema.dropped, schema.term
    # A leaf whose event is missing is shown to whoever sees everything.
    both = leaf.join(event, event.c.n == leaf.c.n, isouter=identity.sees_all)
    both = both.join(dropped, dropped.c.n == leaf.c.n, isouter=True)
    columns = [column for column in event.c if column.name != "n"]
    rows = (
        select(
            leaf.c.idx,
            leaf.c.n,
            leaf.c.n.label("leaf_n"),
            leaf.c.hash.label("leaf_hash"),
            *columns,
            dropped.c.by_n,
            dropped.c.hash,
        )
        .select_from(both)
        .where(leaf.c.idx >= first, leaf.c.idx < end)
    )
    if identity.sees_all:
        return rows
    projects = [term("project", project) for project in sorted(identity.projects)]
    return rows.where(select(terms.c.n).where(terms.c.term.in_(projects), terms.c.n == leaf.c.n).exists())
