"""Finds what a revocation is about in the rows: the releases that it means and that are still out there, and who answered."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, text

from prism_vault_agent.audit.target import Released, Target, as_read
from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.log.evidence import About, Release, hosts
from prism_vault_agent.central.log.feed import as_signal
from prism_vault_agent.central.log.terms import term
from prism_vault_agent.central.storage import schema
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import SecretReference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection, Engine

    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.log.feed import Signal

# By the index out_there alone, without a look at a row, from one reservation to another.
_RELEASED: Final = "FROM event WHERE kind IN ('success', 'cleared') AND reservation_id > :after"
_OUT_THERE: Final = text(
    f"SELECT min(n) {_RELEASED} AND reservation_id <= :upto GROUP BY reservation_id"
    " HAVING max(CASE kind WHEN 'cleared' THEN 1 ELSE 0 END) = 0 AND min(n) < :n"
)
_UPTO: Final = text(f"SELECT reservation_id {_RELEASED} ORDER BY reservation_id LIMIT 1 OFFSET :most")
MOST_LOOKED_AT: Final = 20_000
BEYOND: Final = b"\xff" * 17  # what no id is
SOME: Final = 400
MOST_REMEMBERED: Final = 16
# A row with a lower number may become durable this much later; then what is left can only become less.
SETTLED_MS: Final = 15_000
# How long after a revocation other replicas may still say whom they told.
TELLING_MS: Final = 2_000
MOST_LISTED: Final = 1_000

Json = dict[str, Any]


class Revocations:
    """The revocations on the log. What was once found to be out there is remembered, since it only becomes less."""

    def __init__(self, engine: Engine, connected: Callable[[Signal], list[str]]) -> None:
        """Read through ``engine``; ``connected`` returns the hosts that follow here and that a signal concerns."""
        self._engine = engine
        self._connected = connected
        self._found: dict[int, list[Release]] = {}

    def newest(self, identity: Identity, before: int, limit: int) -> list[Json]:
        """Return the newest revocations with an id below ``before`` that a caller may see, newest first, without their hosts."""
        signal, ack = schema.signal, schema.ack
        question = select(signal).where(signal.c.kind == "revocation", signal.c.id < before).order_by(signal.c.id.desc())
        found: list[Json] = []
        with self._engine.connect() as connection:
            for row in connection.execute(question.limit(MOST_LISTED)):
                if len(found) == limit:
                    break
                if _may_see(identity, revocation := as_signal(row)):
                    found.append(_plain(revocation))
            for each in found:
                answered = select(ack.c.host_id).where(ack.c.signal == each["id"], ack.c.host_id != OWN_HOST).distinct()
                each["answered"] = len(connection.execute(answered).all())
        return found

    def evidence(self, identity: Identity, number: int) -> Json | None:
        """Return a revocation with the state of each host that it concerns; None where the caller may see none of this id."""
        with self._engine.connect() as connection:
            row = connection.execute(
                select(schema.signal).where(schema.signal.c.id == number, schema.signal.c.kind == "revocation")
            ).first()
            if row is None or not _may_see(identity, revocation := as_signal(row)):
                return None
            about = list(_about(connection, number))
            left = self._left(connection, revocation)
        found = hosts(about, left, self._connected(revocation))
        settled = _age(revocation) >= TELLING_MS
        states = [host.state for host in found]
        return {
            **_plain(revocation),
            "complete": settled and all(state == "cleared" for state in states),
            "states": {state: states.count(state) for state in sorted(set(states))},
            "hosts": [host.plain() for host in found],
        }

    def _left(self, connection: Connection, revocation: Signal) -> list[Release]:
        """Return the releases that a revocation means and that no row says are gone."""
        found = self._found.get(revocation.id)
        if found is not None:
            return list(_still(connection, found))
        found = list(_out_there(connection, revocation))
        if _age(revocation) >= SETTLED_MS:
            self._found[revocation.id] = found
            if len(self._found) > MOST_REMEMBERED:
                self._found.pop(min(list(self._found)), None)  # other threads answer the same question meanwhile
        return found


def _may_see(identity: Identity, revocation: Signal) -> bool:
    """Tell whether a caller may see what became of it: all projects that it is about are the caller's."""
    return identity.sees_all or identity.projects.issuperset(revocation.body["projects"])


def _out_there(connection: Connection, revocation: Signal) -> Iterator[Release]:
    """Yield the releases from before a revocation that it means and that have no end on the log."""
    event, target = schema.event, Target.parse(revocation.body["target"], revocation.body["projects"])
    numbers: list[int] = []
    after = b""
    while after < BEYOND:
        upto = connection.execute(_UPTO, {"after": after, "most": MOST_LOOKED_AT}).scalar() or BEYOND
        numbers += connection.execute(_OUT_THERE, {"after": after, "upto": upto, "n": revocation.n}).scalars()
        after = bytes(upto)
    for start in range(0, len(numbers), SOME):
        successes = connection.execute(
            select(event).where(event.c.n.in_(numbers[start : start + SOME])).order_by(event.c.n)
        ).all()
        of = event.c.reservation_id.in_([row.reservation_id for row in successes])
        reserved = connection.execute(select(event.c.reservation_id, event.c.body).where(of, event.c.kind == "reserved"))
        announced = {row.reservation_id: _fields(row.body) for row in reserved}
        for row in successes:
            fields = _fields(row.body)
            if target.means(_released(row.host_id, fields, announced.get(row.reservation_id, {}))):
                yield Release(
                    n=row.n,
                    reservation=row.reservation_id.hex(),
                    host=row.host_id,
                    epoch=row.host_epoch.hex(),
                    boot_ms=fields.get("boot_ms", 0),
                    scopes=fields.get("scopes") or (),
                    run_ref=fields.get("run_ref"),
                )


def _still(connection: Connection, releases: Sequence[Release]) -> Iterator[Release]:
    """Yield those that have no end on the log now either."""
    event = schema.event.c
    for start in range(0, len(releases), SOME):
        some = releases[start : start + SOME]
        of = event.reservation_id.in_([bytes.fromhex(release.reservation) for release in some])
        gone = {
            row.reservation_id.hex()
            for row in connection.execute(select(event.reservation_id).where(of, event.kind == "cleared"))
        }
        yield from (release for release in some if release.reservation not in gone)


def _about(connection: Connection, number: int) -> Iterator[About]:
    """Yield the rows about a signal, in the order of the log."""
    event, of = schema.event, schema.term
    found = select(event).join(of, of.c.n == event.c.n).where(of.c.term == term("signal", str(number))).order_by(event.c.n)
    for row in connection.execute(found):
        fields = _fields(row.body)
        if fields.get("signal") == number:
            yield About(row.n, row.host_id, row.host_epoch.hex(), row.kind, row.received_at, fields)


def _released(host: str, success: Json, reserved: Json) -> Released:
    """Return a release as a target sees it; one whose rows were dropped is of no project and no scope."""
    versions = {lease["path"]: lease["version"] for lease in success.get("leases") or ()}
    return Released(
        host=host,
        project=success.get("project") or "",
        scopes=frozenset(success.get("scopes") or ()),
        run_ref=success.get("run_ref"),
        references=as_read(_references(reserved), versions),
    )


def _references(reserved: Json) -> Iterator[SecretReference]:
    for binding in reserved.get("bindings") or ():
        try:
            yield SecretReference.parse(binding["reference"])
        except (ConfigError, KeyError, TypeError, AttributeError):
            continue  # an agent's word; what is no reference names no secret


def _fields(body: bytes) -> Json:
    fields: Json = json.loads(body) if body else {}
    return fields


def _plain(revocation: Signal) -> Json:
    """Return a revocation as JSON knows it."""
    return {"id": revocation.id, "n": revocation.n, "made_at": revocation.made_at, **revocation.body}


def _age(revocation: Signal) -> int:
    """Return the milliseconds since it was made."""
    return time.time_ns() // 1_000_000 - revocation.made_at
