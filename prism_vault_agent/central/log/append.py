"""The one verb of the audit log: append an agent's events, each checked against its sender, its chain and its reservation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from prism_vault_agent.central.access.policy import Denial, Intent, Policies, decide
from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.log.answer import Answer, denied, refused, taken
from prism_vault_agent.central.log.holding import Refusal, Sender, admit, take
from prism_vault_agent.central.log.incoming import FROM_AGENTS, Event
from prism_vault_agent.central.log.signals import known
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.schema import ENDINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.audit.event import Fields
    from prism_vault_agent.central.access.identity import Identity
    from prism_vault_agent.central.log.transaction import Transaction
    from prism_vault_agent.central.storage.statements import Found

DROPPED: Final = Denial("dropped", "it was denied; why is no longer kept")
# The mode of a release that no agent looks after: whoever makes it is over with it, and has no name.
ONE_TIME: Final = "direct"
SAME_AS_RESERVED: Final = ("project", "environment", "scopes")


def append(transaction: Transaction, identity: Identity, policies: Policies, events: Sequence[Event | Answer]) -> list[Answer]:
    """Append ``events`` in order and return the answer to each. An event that is already an answer was refused while read.

    The first event that is refused ends the work: the events behind it continue a chain that did not move.
    """
    answers: list[Answer] = []
    for event in events:
        if answers and not answers[-1].appended:
            answers.append(_behind(event))
        else:
            answers.append(event if isinstance(event, Answer) else _append(transaction, identity, policies, event))
    return answers


def abandon(transaction: Transaction, reservations: Sequence[str]) -> int:
    """End each reservation that is still open with central's own row, and return how many there were."""
    count = 0
    for reservation in reservations:
        rows = transaction.of_reservation(reservation)
        if rows and rows[0].kind == "reserved" and not any(row.kind in ENDINGS for row in rows):
            told = {"reason": "reservation_expired", "message": "no outcome arrived within the reservation's time"}
            transaction.insert_own({**_about(json.loads(rows[0].body)), **told, "kind": "abandoned"})
            count += 1
    return count


def _append(transaction: Transaction, identity: Identity, policies: Policies, event: Event) -> Answer:
    """Append one event, or say why not."""
    # 1. The sender is who the event says.
    if event.host != identity.host:
        return refused(event, 403, "host_mismatch", "the event's host is not the one that the credential speaks for")
    if event.kind not in FROM_AGENTS:
        return refused(event, 403, "kind_not_allowed", f"an agent makes no events of kind {event.kind}")
    # 2. It was not taken before, and it continues its chain.
    if (answer := _known_or_out_of_place(transaction, event)) is not None:
        return answer
    if event.kind == "admin":  # about the host itself, not about a reservation
        return _about_host(transaction, event)
    # 3. It has its place in the life of its reservation. What is remembered of that may say yes, but never no.
    answer = _place(transaction, identity, policies, event)
    if not answer.appended and transaction.look_again(event.reservation):
        answer = _place(transaction, identity, policies, event)
    # Another replica may have taken this very event since: then it is answered as there.
    if not answer.appended and (row := transaction.by_event_id(event.event_id)) is not None:
        return _again(transaction, event, row)
    return answer


def _about_host(transaction: Transaction, event: Event) -> Answer:
    """Append what a host says of itself; what it did about a signal is kept with that signal."""
    number = event.fields.get("signal")
    if number is None:
        return taken(event, 201, transaction.insert(event))
    if not known(transaction, number):
        return refused(event, 409, "no_signal", "there is no signal with this id")
    placed = transaction.insert(event)
    transaction.also(schema.ack, (number, placed.n, event.host, transaction.now))
    return taken(event, 201, placed)


def _place(transaction: Transaction, identity: Identity, policies: Policies, event: Event) -> Answer:
    """Append an event where the rows of its reservation allow it."""
    rows = transaction.of_reservation(event.reservation)
    if event.kind == "reserved":
        return _reserve(transaction, identity, policies, event, rows)
    return _clear(transaction, event, rows) if event.kind == "cleared" else _end(transaction, event, rows)


def _known_or_out_of_place(transaction: Transaction, event: Event) -> Answer | None:
    """Answer an event that is on the log or does not continue its chain; None for one that does."""
    place = (event.seq - 1, event.prev)
    if not transaction.careful and place == transaction.head(event.host, event.epoch):
        return None
    if (row := transaction.by_event_id(event.event_id)) is not None:
        return _again(transaction, event, row)
    head = transaction.head(event.host, event.epoch, fresh=True)
    if place != head:
        message = "the event does not continue the chain of its host and epoch"
        return refused(event, 409, "chain", message, head=head)
    return None


def _reserve(transaction: Transaction, identity: Identity, policies: Policies, event: Event, rows: Sequence[Found]) -> Answer:
    """Open a reservation, or record it together with central's denial."""
    if rows:
        return refused(event, 409, "reservation_exists", "there is a reservation with this id")
    fields = event.fields
    if (refusal := _may_release(transaction, event, fields)) is not None:
        return refused(event, 409, *refusal)
    intent = Intent(
        host=event.host,
        project=fields["project"],
        environment=fields["environment"],
        scopes=tuple(fields["scopes"]),
        kind=fields["caller"]["kind"],
        purpose=fields["purpose"],
        run_ref=fields.get("run_ref"),
        job_id=fields.get("job_id"),
    )
    denial = decide(policies.rules(intent.project), identity.projects, intent)
    placed = transaction.insert(event)
    if denial is None:
        return taken(event, 201, placed)
    told = {"reason": denial.reason, "message": denial.message, "policy_version": policies.version}
    transaction.insert_own({**_about(fields), **told, "kind": "denied"})
    return denied(event, placed, denial.reason, denial.message)


def _end(transaction: Transaction, event: Event, rows: Sequence[Found]) -> Answer:
    """End a reservation; a denial without one is the agent's own policy and stands alone."""
    ended = next((row.kind for row in rows if row.kind in ENDINGS), None)
    if ended is not None:
        message = f"the reservation has ended with {ended}"
        return refused(event, 409, "reservation_ended", message, ended_by=ended)
    if not rows and event.kind == "denied":
        return taken(event, 201, transaction.insert(event))
    message = "there is no reservation with this id"
    return _follow(transaction, event, rows, kind="reserved", reason="no_reservation", message=message)


def _clear(transaction: Transaction, event: Event, rows: Sequence[Found]) -> Answer:
    """Record that a release is no longer out there."""
    message = "there is no success to take back"
    return _follow(transaction, event, rows, kind="success", reason="not_released", message=message)


def _follow(transaction: Transaction, event: Event, rows: Sequence[Found], *, kind: str, reason: str, message: str) -> Answer:
    """Append an event that follows the row of ``kind``: by the same host, about the same scopes."""
    before = next((row for row in rows if row.kind == kind), None)
    if before is None:
        return refused(event, 409, reason, message)
    if before.host_id != event.host:
        return refused(event, 403, "other_host", "the reservation belongs to another host")
    fields = json.loads(before.body) if before.body else None
    if fields is not None and any(event.fields.get(name) != fields.get(name) for name in SAME_AS_RESERVED):
        return refused(event, 422, "other_scope", "project, environment and scopes are not those of the reservation")
    if event.kind == "success" and (refusal := _may_release(transaction, event, fields or {})) is not None:
        return refused(event, 409, *refusal)
    return taken(event, 200, transaction.insert(event))


def _may_release(transaction: Transaction, event: Event, reserved: Fields) -> Refusal | None:
    """Say why who sends an event of a release may not release in its host's name, by what was ``reserved``."""
    sender = Sender(event.host, event.epoch, str(reserved.get("installation") or ""))
    one_time = not sender.installation or reserved.get("mode") == ONE_TIME
    return admit(transaction, sender) if one_time else take(transaction, sender)


def _again(transaction: Transaction, event: Event, row: Found) -> Answer:
    """Answer an event whose id is on the log: as at the first time, unless its bytes are others."""
    hashed, placed = transaction.as_sent(row)
    if hashed != event.hash:
        return refused(event, 422, "event_id_reused", "another event with this event_id is on the log")
    rows = transaction.of_reservation(event.reservation)
    if event.kind == "reserved":
        no = next((other for other in rows if other.kind == "denied" and other.host_id == OWN_HOST), None)
        if no is None:
            return taken(event, 201, placed)
        why = _denial(json.loads(no.body)) if no.body else DROPPED
        return denied(event, placed, why.reason, why.message)
    alone = event.kind in ("denied", "admin") and not any(other.kind == "reserved" for other in rows)
    return taken(event, 201 if alone else 200, placed)


def _denial(fields: Fields) -> Denial:
    """Return what central said no with, from its row."""
    return Denial(str(fields["reason"]), str(fields["message"]))


def _behind(event: Event | Answer) -> Answer:
    """Return the answer to an event behind a refused one."""
    message = "an earlier event of the batch was refused"
    if isinstance(event, Answer):
        return Answer(424, appended=False, event_id=event.event_id, reason="not_tried", message=message)
    return refused(event, 424, "not_tried", message)


def _about(fields: Fields) -> Fields:
    """Return what a row that central makes says about the reservation it belongs to."""
    names = ("reservation", "project", "environment", "scopes", "purpose", "run_ref", "job_id")
    return {**{name: fields.get(name) for name in names}, "about_host": fields["host"]}
