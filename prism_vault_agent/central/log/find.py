"""Reading the log by question: pages of events that a caller may see, in the order of their index ``n``.

Every question is answered from an index, and a page looks at a bounded number of rows: of the terms that all must match, the
rarest leads (``terms.py``), and where there is none, the primary key does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, func, select

from prism_vault_agent.audit.event import FIRST
from prism_vault_agent.central.log.plain import hash_of, plain
from prism_vault_agent.central.log.terms import RARE, term
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.schema import dropped, event
from prism_vault_agent.central.storage.statements import NEWEST_HEAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Engine, FromClause, Row, Select

    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.log.question import Question

MOST_LOOKED_AT: Final = 20_000
# Within so many rows, the order of arrival and that of the clock may differ: replicas' clocks, or one that was set back.
OUT_OF_ORDER: Final = 10_000
FEW: Final = 200
NAMES: Final = ("scope", "host", "run_ref", "job_id", "purpose")
Terms = tuple[int, ...]
Window = tuple[int, int]  # behind the first index, up to and with the second


@dataclass(frozen=True, slots=True)
class Page:
    """Events in the order of their index, and after which index to go on, or None at the end of the log."""

    events: list[dict[str, Any]]
    next: int | None


def find(engine: Engine, identity: Identity, question: Question) -> Page:
    """Return the next events that match ``question`` and that ``identity`` may see. A page may be empty and not the last."""
    terms = _terms(identity, question)
    with engine.connect() as connection:
        end = connection.execute(select(func.max(event.c.n))).scalar() or 0
        low, high = _bounds(connection, question, end)
        window, leading = _window(connection, question, terms, (low, high))
        rows = connection.execute(_rows(question, terms, leading, window)).all()
    shown = [plain(row) for row in rows if _says(row, identity, question)]
    if question.last is not None:
        return Page(shown[::-1], None)
    looked = rows[-1].n if len(rows) == question.limit else window[1]
    return Page(shown, looked if looked < high else None)


def head(engine: Engine, host: str) -> dict[str, Any]:
    """Return where the newest chain of ``host`` stands: epoch, sequence number and hash."""
    with engine.connect() as connection:
        row = connection.execute(NEWEST_HEAD, {"host_id": host}).first()
    if row is None:
        return {"host": host, "epoch": None, "seq": 0, "hash": FIRST}
    return {"host": host, "epoch": row.host_epoch.hex(), "seq": row.host_seq, "hash": hash_of(row)}


def _terms(identity: Identity, question: Question) -> list[Terms]:
    """Return sets of terms of each of which an event must have one; the last is for what the caller may see."""
    terms: list[Terms] = [(term(name, value),) for name in NAMES if (value := getattr(question, name)) is not None]
    terms += [(term("kind", kind),) for kind in (question.kind, question.outcome) if kind in RARE]
    if not identity.sees_all:
        terms.append(tuple(term("project", project) for project in sorted(identity.projects)))
    return terms


def _bounds(connection: Connection, question: Question, end: int) -> Window:
    """Return the window of indexes outside of which no event can match."""
    low, high = question.after, end
    if question.since is not None and low == 0:
        of_clock = select(event.c.n).where(event.c.received_at >= question.since).order_by(event.c.received_at)
        first = connection.execute(select(func.min(of_clock.limit(OUT_OF_ORDER).subquery().c.n))).scalar()
        low = end if first is None else first - 1
    if question.until is not None:
        of_clock = select(event.c.n).where(event.c.received_at < question.until).order_by(event.c.received_at.desc())
        high = connection.execute(select(func.max(of_clock.limit(OUT_OF_ORDER).subquery().c.n))).scalar() or low
    return low, max(low, high)


def _window(connection: Connection, question: Question, terms: Sequence[Terms], bounds: Window) -> tuple[Window, Terms | None]:
    """Return the window in which one page looks, and the set of terms that leads: that which the fewest rows there have."""
    low, high = bounds
    backwards = question.last is not None
    if question.reservation is not None:
        return bounds, None
    leading, stop = None, high - MOST_LOOKED_AT if backwards else low + MOST_LOOKED_AT
    for most in (FEW, MOST_LOOKED_AT) if terms else ():
        stops = {each: _stop(connection, each, bounds, most, backwards=backwards) for each in terms}
        leading, stop = (min if backwards else max)(stops.items(), key=lambda of: of[1])
        if stop in bounds:
            break
    return (max(low, stop), high) if backwards else (low, min(stop, high)), leading


def _stop(connection: Connection, terms: Terms, bounds: Window, most: int, *, backwards: bool) -> int:
    """Return where ``most`` rows with one of ``terms`` have been passed, or the end of the window."""
    n = schema.term.c.n
    stops = []
    for each in terms:
        rows = select(n).where(schema.term.c.term == each, n > bounds[0], n <= bounds[1])
        rows = rows.order_by(n.desc() if backwards else n).limit(1).offset(most - 1)
        found = connection.execute(rows).scalar()
        stops.append((bounds[0] if backwards else bounds[1]) if found is None else found)
    return max(stops, default=bounds[0]) if backwards else min(stops, default=bounds[1])


def _rows(question: Question, terms: Sequence[Terms], leading: Terms | None, window: Window) -> Select[Any]:
    """Return the statement of one page."""

    # The bounds are said of each table: a merge of their indexes would begin with the first row of the log else.
    def within(n: ColumnElement[int]) -> ColumnElement[bool]:
        return and_(n > window[0], n <= window[1])

    # An event whose body was dropped has an empty one, and says by which event.
    rows = select(event, dropped.c.by_n, dropped.c.hash).where(within(event.c.n), *_columns(question))
    rows = rows.outerjoin(dropped, and_(dropped.c.n == event.c.n, within(dropped.c.n)))
    n = event.c.n if leading is None else schema.term.c.n
    if leading is not None:
        rows = rows.join(schema.term, n == event.c.n).where(_one_of(schema.term, leading), within(n))
    for each in terms:
        if each is not leading:
            other = schema.term.alias()
            rows = rows.where(select(other.c.n).where(other.c.n == event.c.n, _one_of(other, each)).exists())
    return rows.order_by(n if question.last is None else n.desc()).limit(question.last or question.limit)


def _one_of(terms: FromClause, numbers: Terms) -> ColumnElement[bool]:
    column = terms.c.term
    # IN over one number reads as an index's equality in both databases only if it is one.
    return column == numbers[0] if len(numbers) == 1 else column.in_(numbers)


def _columns(question: Question) -> list[ColumnElement[bool]]:
    """Return the conditions on columns."""
    conditions = [event.c.kind == kind for kind in (question.kind, question.outcome) if kind is not None]
    if question.reservation is not None:
        conditions.append(event.c.reservation_id == bytes.fromhex(question.reservation))
    if question.since is not None:
        conditions.append(event.c.received_at >= question.since)
    if question.until is not None:
        conditions.append(event.c.received_at < question.until)
    return conditions


def _says(row: Row[Any], identity: Identity, question: Question) -> bool:
    """Tell whether a row has the very names that its terms stand for; a row without its body has only the terms."""
    if not row.body:
        return True
    fields = json.loads(row.body)
    named = {
        "scope": fields.get("scopes") or (),
        "host": (row.host_id, fields.get("about_host")),
        **{name: (fields.get(name),) for name in ("run_ref", "job_id", "purpose")},
    }
    asked = all(value is None or value in named[name] for name in NAMES for value in (getattr(question, name),))
    return asked and (identity.sees_all or fields.get("project") in identity.projects)
