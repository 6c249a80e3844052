"""Does the log still hold what was put in? Recomputes every host's chain from the rows alone. Pure; standard library only.

A chain proves the order and the bytes of one host's events. It does not prove when central received them, nor that
its newest events are still there: for that, compare each chain's end with the head that its agent knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.audit.event import FIRST, digest, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

ENDINGS: Final = frozenset({"success", "denied", "failure", "abandoned"})
# Column of the row, and the field of the bytes that it repeats.
COLUMNS: Final = (
    ("event_id", "event_id"),
    ("host_id", "host"),
    ("host_epoch", "epoch"),
    ("host_seq", "seq"),
    ("prev_hash", "prev"),
    ("reservation_id", "reservation"),
    ("kind", "kind"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was read: ids and hashes in hex, ``body`` as bytes."""

    n: int
    event_id: str
    host_id: str
    host_epoch: str
    host_seq: int
    prev_hash: str
    reservation_id: str
    kind: str
    body: bytes


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is wrong, at which index."""

    n: int
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much was looked at, and the fault with the lowest index, or None."""

    rows: int
    chains: int
    fault: Fault | None


@dataclass(slots=True)
class _Link:
    """The last row of a chain: where it is, what it holds, and which row must be bad if the next one agrees with it."""

    n: int
    seq: int
    hash: str
    suspect: int | None = None


@dataclass(slots=True)
class _Look:
    """What is remembered while the rows go by."""

    chains: dict[tuple[str, str], _Link] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    holes: list[int] = field(default_factory=list)
    last: int = 0
    fault: Fault | None = None

    def found(self, n: int, what: str) -> None:
        """Keep the fault with the lowest index."""
        fault = Fault(n, what)
        if self.fault is None or fault < self.fault:
            self.fault = fault


def verify(rows: Iterable[Row]) -> Verdict:
    """Check rows in the order of their index: columns, chains, reservations. The fault named is the first bad index."""
    look = _Look()
    count = 0
    for row in rows:
        count += 1
        _check_place(look, row)
        fields = _check_row(look, row)
        _check_link(look, row)
        _check_reservation(look, row, fields)
    for link in look.chains.values():
        if link.suspect is not None:
            look.found(link.suspect, "its bytes are not those that the next event of its host was linked to")
    return Verdict(count, len(look.chains), look.fault)


def _check_place(look: _Look, row: Row) -> None:
    """Rows come in the order of their index; a hole in it is kept, since a chain may show what was there."""
    if row.n <= look.last:
        look.found(row.n, "its index is not above the one before")
    elif row.n != look.last + 1:
        look.holes.append(look.last + 1)
    look.last = max(look.last, row.n)


def _check_row(look: _Look, row: Row) -> dict[str, Any]:
    """The bytes are canonical, and each column repeats its field. Returns the fields, empty where there are none."""
    try:
        fields: dict[str, Any] = parse(row.body)
    except (ValueError, RecursionError):
        look.found(row.n, "its bytes are not a canonical event")
        return {}
    for column, name in COLUMNS:
        if getattr(row, column) != fields.get(name):
            look.found(row.n, f"its column {column} is not what its bytes say")
    return fields


def _check_link(look: _Look, row: Row) -> None:
    """The row continues its chain. Where it does not, the row behind it tells which of the two was changed."""
    key = (row.host_id, row.host_epoch)
    before = look.chains.get(key, _Link(0, 0, FIRST))
    here = _Link(row.n, row.host_seq, digest(row.body))
    if row.host_seq != before.seq + 1:
        hole = next((n for n in look.holes if before.n < n < row.n), None)
        what = f"events {before.seq + 1} to {row.host_seq - 1} of host {row.host_id} are missing"
        if row.host_seq <= before.seq:
            what = f"event {row.host_seq} of host {row.host_id} stands behind event {before.seq}"
        look.found(row.n if hole is None else hole, what)
    elif row.prev_hash != before.hash:
        here.suspect = before.n or row.n
    if before.suspect is not None:
        # The row before did not link to the one before it. If this one links to it, it is as it was sent.
        linked = row.prev_hash == before.hash
        look.found(before.suspect if linked else before.n, "its bytes are not those that its neighbours are linked to")
        if not linked:
            here.suspect = None
    look.chains[key] = here


def _check_reservation(look: _Look, row: Row, fields: dict[str, Any]) -> None:
    """A reservation is opened once and ended once; a success or failure has one that was opened before it."""
    kind = fields.get("kind", row.kind)
    reservation = row.reservation_id
    if kind == "reserved":
        if reservation in look.opened:
            look.found(row.n, "its reservation was opened before")
        look.opened.add(reservation)
    if kind in ("success", "failure", "abandoned") and reservation not in look.opened:
        look.found(row.n, f"a {kind} without a reservation before it")
    if kind in ENDINGS:
        if reservation in look.ended:
            look.found(row.n, "its reservation had ended before")
        look.ended.add(reservation)
