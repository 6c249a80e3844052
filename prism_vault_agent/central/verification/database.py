"""What is the same in both kinds of database that a log is verified in: which rows are read, in which order, in pages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Self

from prism_vault_agent.central.verification.row import look
from prism_vault_agent.central.verification.tree import Sealed
from prism_vault_agent.proof.merkle import TILE_LEVELS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from prism_vault_agent.central.verification.row import Looked

AT_ONCE: Final = 4_096
_EVENT: Final = (
    "event.event_id, {text}(event.host_id{as_bytes}), event.host_epoch, event.host_seq, event.prev_hash, event.reservation_id, "
    "{text}(event.kind{as_bytes}), event.received_at, event.body"
)
_WITH_LEAF: Final = (
    "SELECT leaf.idx, leaf.n, leaf.hash, {event}, {dropped} FROM leaf LEFT JOIN event ON event.n = leaf.n {join} "
    "WHERE leaf.idx > {mark} {upto} ORDER BY leaf.idx LIMIT {mark}"
)
_WITHOUT_LEAF: Final = (
    "SELECT NULL, event.n, NULL, {event}, {dropped} FROM event LEFT JOIN leaf ON leaf.n = event.n {join} "
    "WHERE leaf.idx IS NULL AND event.n > {mark} {upto} ORDER BY event.n LIMIT {mark}"
)
_UNPROVED: Final = (
    "SELECT NULL, event.n, NULL, {event}, {dropped} FROM event WHERE event.n > {mark} {upto} ORDER BY event.n LIMIT {mark}"
)
_UPTO: Final = "AND leaf.idx <= {mark}"
_AHEAD: Final = "SELECT max(idx) FROM (SELECT idx FROM leaf WHERE idx > {mark} ORDER BY idx LIMIT {mark}) AS ahead"
_DROPPED: Final = {"dropped": "dropped.by_n, dropped.hash", "join": "LEFT JOIN dropped ON dropped.n = event.n"}
_NOTHING_DROPPED: Final = {"dropped": "NULL, NULL", "join": ""}


class Damaged(Exception):
    """The database has what central wrote no longer where it was."""


# Leaves behind the first index, up to the second; rows that were read; or why there are none.
Part = tuple[int, int] | list[tuple[Any, ...]] | str


class Database(ABC):
    """What both kinds have in common. Nothing is locked for long, so that it can be one that central writes to.

    Other processes look at its parts over connections of their own: a database comes to them as one that is opened there.
    """

    _text: Mapping[str, str]
    _mark: str  # for a value of a statement

    def __init__(self, *, unproved: bool = False) -> None:
        """Find out how far the checkpoints go: leaves that are read later go as far.

        With ``unproved``, it may be of a version that had no leaves yet; else that is no readable log.
        """
        there = self._tables()
        self._proved = not unproved or "leaf" in there
        self._sealed = self._all("SELECT coalesce(max(size), 0) FROM checkpoint")[0][0] if self._proved else 0
        dropped = _DROPPED if "dropped" in there else _NOTHING_DROPPED
        self._columns = {"event": _EVENT.format(**self._text), **dropped}

    @abstractmethod
    def _all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a statement. Raises :class:`Damaged` where they cannot be read."""

    @abstractmethod
    def _tables(self) -> set[str]:
        """Return which tables there are: an older version's database has fewer."""

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

    def parts(self) -> Iterator[Part]:
        """Yield all rows as :class:`~prism_vault_agent.central.verification.row.Row` has them, or where they are."""
        if not self._proved:
            yield from self._pages(_UNPROVED, 0, column=1)
            return
        after = yield from self._stretches()
        # What has no leaf by now must not get one unseen while it is looked for.
        self._snapshot()
        yield from self._pages(_WITH_LEAF, after, column=0)
        yield from self._pages(_WITHOUT_LEAF, 0, column=1)

    def rows(self, part: Part) -> Iterable[tuple[Any, ...] | str]:
        """Return the rows of a part; where not all can be read, those before what cannot, and why."""
        if isinstance(part, str):
            return [part]
        if isinstance(part, list):
            return part
        return chain.from_iterable([page] if isinstance(page, str) else page for page in self._pages(_WITH_LEAF, *part))

    def look(self, part: Part) -> list[Looked]:
        """Look at the rows of a part."""
        return look(self.rows(part))

    def checkpoints(self) -> Iterator[Sealed]:
        """Yield the checkpoints, by size."""
        if not self._proved:
            return
        statement = "SELECT size, root, note FROM checkpoint WHERE size <= {}"
        yield from (Sealed(*row) for row in self._each(statement.format(self._sealed), "size"))

    def nodes(self) -> Mapping[int, Iterator[tuple[int, bytes]]]:
        """Return the stored nodes of each level."""
        if not self._proved:
            return {}
        statement = "SELECT idx, hash FROM node WHERE level = {}"
        return {level: self._each(statement.format(level), "idx") for level in TILE_LEVELS}

    def newest(self) -> Sealed | None:
        """Return the newest checkpoint of those that :meth:`checkpoints` yields, or None."""
        if not self._sealed:
            return None
        statement = "SELECT size, root, note FROM checkpoint WHERE size = {}"
        return Sealed(*self._all(statement.format(self._mark), self._sealed)[0])

    def is_sound(self) -> bool:
        """Tell whether the database's own structure is whole, where that can be asked; a server looks after its own."""
        return True

    @abstractmethod
    def unguarded(self) -> list[str]:
        """Return which tables have no guard against which change."""

    def seal(self) -> Sealed | None:
        """Return None: a database has its checkpoints beside the rows."""
        return None

    def _each(self, statement: str, key: str) -> Iterator[tuple[Any, ...]]:
        """Yield what a statement selects by its first column, ``key``."""
        after = -1
        while rows := self._all(f"{statement} AND {key} > {self._mark} ORDER BY {key} LIMIT {self._mark}", after, AT_ONCE):
            yield from rows
            after = rows[-1][0]

    def _stretches(self) -> Generator[Part, None, int]:
        """Yield where the leaves are, and return the index of the last."""
        after, most = -1, AT_ONCE
        ahead = _AHEAD.format(mark=self._mark)
        while True:
            try:
                upto = self._all(ahead, after, most)[0][0]
            except Damaged as damage:
                if most == 1:
                    yield _unreadable(damage)
                    return after
                most //= 8
                continue
            if upto is None:
                return after
            yield after, upto
            after, most = upto, AT_ONCE

    def _pages(
        self, statement: str, after: int, upto: int | None = None, column: int = 0
    ) -> Iterator[list[tuple[Any, ...]] | str]:
        """Yield pages of a statement by one of its columns; where not all can be read, those before what cannot, and why."""
        bound = (upto,) if upto is not None else ()
        statement = statement.format(**self._columns, upto=_UPTO.format(mark=self._mark) if bound else "", mark=self._mark)
        most = AT_ONCE
        while True:
            try:
                rows = self._all(statement, after, *bound, most)
            except Damaged as damage:
                if most == 1:
                    yield _unreadable(damage)
                    return
                most //= 8
                continue
            if rows:
                yield rows
            if len(rows) < most or rows[-1][column] == upto:
                return
            after, most = rows[-1][column], AT_ONCE


def _unreadable(damage: Damaged) -> str:
    return f"the database cannot be read from there on: {damage}"
