"""What is the same in both kinds of database that a log is verified in: which rows are read, in which order, in pages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Self

from prism_vault_agent.central.verification.fault import Fault
from prism_vault_agent.central.verification.row import look
from prism_vault_agent.central.verification.tree import Sealed
from prism_vault_agent.proof.merkle import TILE_LEVELS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

AT_ONCE: Final = 4_096
_EVENT: Final = (
    "event.event_id, {text}(event.host_id{as_bytes}), event.host_epoch, event.host_seq, event.prev_hash, event.reservation_id, "
    "{text}(event.kind{as_bytes}), event.received_at, event.body"
)
_WITH_LEAF: Final = (
    "SELECT leaf.idx, leaf.n, leaf.hash, {event}, {dropped} FROM leaf LEFT JOIN event ON event.n = leaf.n {join} "
    "WHERE leaf.idx > {after} ORDER BY leaf.idx LIMIT {most}"
)
_WITHOUT_LEAF: Final = (
    "SELECT NULL, event.n, NULL, {event}, {dropped} FROM event LEFT JOIN leaf ON leaf.n = event.n {join} "
    "WHERE leaf.idx IS NULL AND event.n > {after} ORDER BY event.n LIMIT {most}"
)
_DROPPED: Final = {"dropped": "dropped.by_n, dropped.hash", "join": "LEFT JOIN dropped ON dropped.n = event.n"}
_NOTHING_DROPPED: Final = {"dropped": "NULL, NULL", "join": ""}


class Damaged(Exception):
    """The database has what central wrote no longer where it was."""


class Database(ABC):
    """What both kinds have in common. Nothing is locked for long, so that it can be one that central writes to."""

    look = staticmethod(look)
    _text: Mapping[str, str]

    def __init__(self) -> None:
        """Find out how far the checkpoints go: leaves that are read later go as far."""
        self.damage: Fault | None = None
        self._last = 0
        self._sealed = self._all("SELECT coalesce(max(size), 0) FROM checkpoint")[0][0]

        dropped = _DROPPED if self._has_dropped() else _NOTHING_DROPPED
        self._columns = {"event": _EVENT.format(**self._text), **dropped}

    @abstractmethod
    def _all(self, statement: str) -> list[tuple[Any, ...]]:
        """Return all rows of a statement."""

    @abstractmethod
    def _has_dropped(self) -> bool:
        """Tell whether there is a table ``dropped``: an older version's database has none."""

    @abstractmethod
    def _snapshot(self) -> None:
        """From now on, see the database as it is at the next statement."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def expected(self) -> int:
        """Return how many leaves there are."""
        found: int = self._all("SELECT coalesce(max(idx) + 1, 0) FROM leaf")[0][0]
        return found

    def parts(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield all rows as :class:`~prism_vault_agent.central.verification.row.Row` has them."""
        after = yield from self._from(_WITH_LEAF, -1, column=0)
        # What has no leaf by now must not get one unseen while it is looked for.
        self._snapshot()
        yield from self._from(_WITH_LEAF, after, column=0)
        yield from self._from(_WITHOUT_LEAF, 0, column=1)

    def checkpoints(self) -> Iterator[Sealed]:
        """Yield the checkpoints, by size."""
        statement = "SELECT size, root, note FROM checkpoint WHERE size <= {}"
        yield from (Sealed(*row) for row in self._each(statement.format(self._sealed), "size"))

    def nodes(self) -> Mapping[int, Iterator[tuple[int, bytes]]]:
        """Return the stored nodes of each level."""
        statement = "SELECT idx, hash FROM node WHERE level = {}"
        return {level: self._each(statement.format(level), "idx") for level in TILE_LEVELS}

    @abstractmethod
    def unguarded(self) -> list[str]:
        """Return which tables have no guard against which change."""

    def seal(self) -> Sealed | None:
        """Return None: a database has its checkpoints beside the rows."""
        return None

    def _each(self, statement: str, key: str) -> Iterator[tuple[Any, ...]]:
        """Yield what a statement selects by its first column, ``key``."""
        after = -1
        while rows := self._page(f"{statement} AND {key} > {{after}} ORDER BY {key} LIMIT {{most}}", after):
            yield from rows
            after = rows[-1][0]

    def _from(self, statement: str, after: int, column: int) -> Generator[list[tuple[Any, ...]], None, int]:
        """Yield pages of a statement by one of its columns, and return where it ended."""
        while rows := self._page(statement, after):
            yield rows
            after = rows[-1][column]
            self._last = rows[-1][1]
        return after

    def _page(self, statement: str, after: int, most: int = AT_ONCE) -> list[tuple[Any, ...]]:
        """Return the next rows; where not all can be read, those before what cannot."""
        try:
            return self._all(statement.format(**self._columns, after=after, most=most))
        except Damaged as damage:
            if most > 1:
                return self._page(statement, after, most // 8)
            self.damage = self.damage or Fault(self._last + 1, f"the database cannot be read from there on: {damage}")
            return []
