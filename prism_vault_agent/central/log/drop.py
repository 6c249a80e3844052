"""Drops bodies of events: their rows, their leaves and every proof stay. Each time is an event of its own on the log.

Dropped is only what a signed checkpoint covers, of reservations that are over, and nothing that central says about the log
itself. The database's guards hold to the same rules (migration 0003). Where checkpoints are anchored, the one that covers it must
have been: the guards cannot know that, and the event that drops says it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.audit.event import digest, new_id
from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.log.remains import Remains, remains
from prism_vault_agent.central.log.terms import term
from prism_vault_agent.central.storage.schema import ENDINGS
from prism_vault_agent.central.storage.statements import WHOLE, Whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prism_vault_agent.audit.event import Fields
    from prism_vault_agent.central.log.transaction import Transaction

DROPPING: Final = 0x7072_6973_6D03  # a lock's number: whoever has it drops bodies
ABOUT_THE_LOG: Final = frozenset({"admin", "policy"})
MOST_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Dropped:
    """What one transaction dropped, by the event ``n`` (None where there was nothing to drop), and what it had to keep.

    ``leaves`` are ranges of leaf indexes, first and last. Rows of ``open`` reservations are kept, and those that ``wait`` for a
    checkpoint, or for its anchor.
    """

    n: int | None = None
    count: int = 0
    leaves: tuple[tuple[int, int], ...] = ()
    open: int = 0
    wait: int = 0


@dataclass(frozen=True, slots=True)
class Doomed:
    """Which events: those with these indexes, and with their ``reservations`` every other event of each."""

    numbers: Sequence[int]
    reservations: Sequence[str] = ()


def drop(transaction: Transaction, doomed: Doomed, why: Fields, anchored: int | None = None) -> Dropped:
    """Drop the bodies of all events that may go, and record ``why``; a time ``before`` in it spares what came since.

    ``why`` are fields of the event: its ``reason``, who asked, and for what. ``anchored`` is how many leaves the newest
    checkpoint covers that is in every place where checkpoints are anchored; None where none are.
    """
    cursor, writing = transaction.cursor, transaction.writing
    writing.in_turn(cursor, DROPPING)
    numbers = set(doomed.numbers)
    for found in writing.of_reservations(cursor, [bytes.fromhex(each) for each in doomed.reservations]):
        numbers.add(found.n)
    before: Any = why.get("before")
    there = [row for row in _whole(transaction, numbers) if row.body and (before is None or row.received_at < before)]
    there = [row for row in there if row.host_id != OWN_HOST or row.kind not in ABOUT_THE_LOG]
    still_open = _open(transaction, there)
    over = [row for row in there if row.reservation_id not in still_open]
    size = covered(transaction) if anchored is None else min(covered(transaction), anchored)
    rows = sorted((row for row in over if row.idx is not None and row.idx < size), key=lambda row: row.idx or 0)
    kept = Dropped(open=len(there) - len(over), wait=len(over) - len(rows))
    if not rows:
        return kept
    leaves = _ranges(row.idx for row in rows if row.idx is not None)
    told: Fields = {"dropped": len(rows), "leaves": [list(leaf) for leaf in leaves], "remains": remains(map(_remains, rows))}
    if anchored is not None:
        told["anchored"] = anchored
    common: Fields = {"kind": "admin", "reservation": new_id(), "project": None, "environment": None, "scopes": []}
    placed = transaction.insert_own({**common, **why, **told})
    transaction.flush()  # the guards look for the event that drops
    terms = [(number, row.n) for row in rows for number in _terms(row)]
    writing.drop(cursor, placed.n, [(row.n, bytes.fromhex(digest(row.body))) for row in rows], terms)
    transaction.read_again({row.reservation_id.hex() for row in rows})
    return replace(kept, n=placed.n, count=len(rows), leaves=tuple(leaves))


def covered(transaction: Transaction) -> int:
    """Return how many leaves the newest signed checkpoint covers."""
    transaction.cursor.execute("SELECT coalesce(max(size), 0) FROM checkpoint")
    return int(transaction.cursor.fetchall()[0][0])


def _whole(transaction: Transaction, numbers: Iterable[int]) -> list[Whole]:
    """Return rows with their leaf's index, by ``n``."""
    ordered = sorted(numbers)
    found: list[Whole] = []
    for start in range(0, len(ordered), MOST_AT_ONCE):
        some = ", ".join(f"{n:d}" for n in ordered[start : start + MOST_AT_ONCE])
        transaction.cursor.execute(WHOLE.format(some))
        found += map(Whole._make, transaction.cursor.fetchall())
    return found


def _open(transaction: Transaction, rows: Iterable[Whole]) -> set[bytes]:
    """Return which of the rows' reservations are open."""
    reservations = list({row.reservation_id for row in rows})
    kinds: dict[bytes, set[str]] = {}
    for found in transaction.writing.of_reservations(transaction.cursor, reservations):
        kinds.setdefault(found.reservation_id, set()).add(found.kind)
    return {reservation for reservation, of in kinds.items() if "reserved" in of and not of & ENDINGS}


def _terms(row: Whole) -> set[int]:
    """Return the terms by which a row can no longer be found. Its host and its kind are columns, which stay."""
    fields: dict[str, Any] = json.loads(row.body)
    found = {term("scope", scope) for scope in fields.get("scopes") or ()}
    return found | {term(what, fields[what]) for what in ("project", "run_ref", "job_id", "purpose") if fields.get(what)}


def _remains(row: Whole) -> Remains:
    ids = (row.event_id.hex(), row.host_id, row.host_epoch.hex(), row.host_seq, row.prev_hash.hex(), row.reservation_id.hex())
    return Remains(row.n, row.received_at, *ids, row.kind, digest(row.body))


def _ranges(indexes: Iterable[int]) -> list[tuple[int, int]]:
    """Return rising numbers as first and last of each run."""
    ranges: list[tuple[int, int]] = []
    for index in indexes:
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1] = (ranges[-1][0], index)
        else:
            ranges.append((index, index))
    return ranges
