"""Reading the log: pages of events that a caller may see. A page looks at a bounded number of rows, so no question is slow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Text, cast, func, or_, select
from sqlalchemy.sql.expression import exists, text

from prism_vault_agent.audit.event import FIRST, digest
from prism_vault_agent.central.storage.schema import dropped, event
from prism_vault_agent.central.storage.statements import NEWEST_HEAD

if TYPE_CHECKING:
    from sqlalchemy import Engine, Row

    from prism_vault_agent.central.access.identity import Identity

MOST_ROWS: Final = 1_000
MOST_LOOKED_AT: Final = 20_000
MOST_LOOKED_BACK: Final = 100_000
# An event whose body was dropped has an empty one, and says by which event.
_EVENTS: Final = select(event, dropped.c.by_n, dropped.c.hash).outerjoin(dropped, dropped.c.n == event.c.n)
FIELDS: Final = ("run_ref", "job_id", "purpose")


@dataclass(frozen=True, slots=True)
class Question:
    """Which events: those after index ``after``, or with ``last`` the newest ones. Times are milliseconds since 1970."""

    after: int = 0
    limit: int = 100
    last: int | None = None
    scope: str | None = None
    host: str | None = None
    run_ref: str | None = None
    job_id: str | None = None
    purpose: str | None = None
    kind: str | None = None
    reservation: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Events in the order of their index, and after which index to go on, or None at the end of the log."""

    events: list[dict[str, Any]]
    next: int | None


def find(engine: Engine, identity: Identity, question: Question) -> Page:
    """Return the next events that match ``question`` and that ``identity`` may see. A page may be empty and not the last."""
    conditions = [*_visible(identity), *_matching(question)]
    with engine.connect() as connection:
        end = connection.execute(select(event.c.n).order_by(event.c.n.desc()).limit(1)).scalar() or 0
        if question.last is not None:
            newest = (
                _EVENTS.where(event.c.n > end - MOST_LOOKED_BACK, *conditions).order_by(event.c.n.desc()).limit(question.last)
            )
            rows = list(reversed(connection.execute(newest).all()))
            return Page([_plain(row) for row in rows], None)
        if question.reservation is not None:
            window = [event.c.n > question.after]
            looked = end
        else:
            looked = min(question.after + MOST_LOOKED_AT, end)
            window = [event.c.n > question.after, event.c.n <= looked]
        page = _EVENTS.where(*window, *conditions).order_by(event.c.n).limit(question.limit)
        rows = list(connection.execute(page).all())
    if len(rows) == question.limit:
        looked = rows[-1].n
    return Page([_plain(row) for row in rows], looked if looked < end else None)


def head(engine: Engine, host: str) -> dict[str, Any]:
    """Return where the newest chain of ``host`` stands: epoch, sequence number and hash."""
    with engine.connect() as connection:
        row = connection.execute(NEWEST_HEAD, {"host_id": host}).first()
    if row is None:
        return {"host": host, "epoch": None, "seq": 0, "hash": FIRST}
    return {"host": host, "epoch": row.host_epoch.hex(), "seq": row.host_seq, "hash": _hash(row)}


def _visible(identity: Identity) -> list[ColumnElement[bool]]:
    """Return the condition that a row is of one of the caller's projects; a row of no project is for callers of all."""
    return [] if identity.sees_all else [_field("project").in_(sorted(identity.projects))]


def _matching(question: Question) -> list[ColumnElement[bool]]:
    """Return the conditions of a question."""
    conditions: list[ColumnElement[bool]] = []
    if question.kind is not None:
        conditions.append(event.c.kind == question.kind)
    if question.host is not None:
        conditions.append(or_(event.c.host_id == question.host, _field("about_host") == question.host))
    if question.reservation is not None:
        conditions.append(event.c.reservation_id == bytes.fromhex(question.reservation))
    if question.since is not None:
        conditions.append(event.c.received_at >= question.since)
    if question.until is not None:
        conditions.append(event.c.received_at < question.until)
    conditions += [_field(name) == value for name in FIELDS if (value := getattr(question, name)) is not None]
    if question.scope is not None:
        scopes = func.json_each(_text(), "$.scopes").table_valued("value", name="scopes")
        conditions.append(exists(select(text("1")).select_from(scopes).where(scopes.c.value == question.scope)))
    return conditions


def _field(name: str) -> ColumnElement[str]:
    """Return a field of the event's own bytes."""
    return func.json_extract(_text(), f"$.{name}", type_=Text)


def _text() -> ColumnElement[str]:
    """Return the event's bytes as text, or NULL where they were dropped."""
    return func.nullif(cast(event.c.body, Text), "", type_=Text)


def _plain(row: Row[Any]) -> dict[str, Any]:
    """Return an event as JSON knows it; ``body`` is its bytes as text, exactly as sent and hashed.

    ``dropped_by`` is None, or the index of the event that dropped the body, which is empty then; ``hash`` is that of what it was.
    """
    return {
        "n": row.n,
        "event_id": row.event_id.hex(),
        "host_id": row.host_id,
        "host_epoch": row.host_epoch.hex(),
        "host_seq": row.host_seq,
        "prev_hash": row.prev_hash.hex(),
        "kind": row.kind,
        "reservation_id": row.reservation_id.hex(),
        "received_at": row.received_at,
        "body": row.body.decode("utf-8", "replace"),
        "hash": _hash(row),
        "dropped_by": row.by_n,
    }


def _hash(row: Any) -> str:
    """Return the hash of a row's body as it was sent."""
    return digest(row.body) if row.hash is None else bytes(row.hash).hex()
