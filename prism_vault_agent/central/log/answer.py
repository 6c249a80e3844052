"""What central answers to one event: a status as HTTP knows it, and whether the event is now on the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prism_vault_agent.audit.event import audit_id

if TYPE_CHECKING:
    from prism_vault_agent.central.log.incoming import Event
    from prism_vault_agent.central.storage.statements import Placed


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one event.

    ``appended`` tells that the event is on the log, now or since an earlier request: true for every 200 and 201, and for
    a 403 where central's policy said no (its denial is on the log as well). ``reason`` is a stable word, empty on
    success. ``ended_by`` (409) is the kind of the row that ended the reservation; ``head`` (409 ``chain``) is where the
    chain of this host and epoch stands. ``leaf`` is the hash of the event's leaf in the log's tree (hex), which is made of
    ``n``, ``received_at`` (milliseconds since 1970) and the event: who sent it can check it.
    """

    status: int
    appended: bool
    event_id: str = ""
    audit_id: str = ""
    n: int | None = None
    received_at: int | None = None
    hash: str = ""
    leaf: str = ""
    reason: str = ""
    message: str = ""
    ended_by: str = ""
    head: tuple[int, str] | None = None

    def plain(self) -> dict[str, Any]:
        """Return the answer as JSON knows it."""
        plain: dict[str, Any] = {
            "status": self.status,
            "appended": self.appended,
            "event_id": self.event_id,
            "audit_id": self.audit_id,
            "n": self.n,
            "received_at": self.received_at,
            "hash": self.hash,
            "leaf": self.leaf,
            "reason": self.reason,
            "message": self.message,
        }
        if self.ended_by:
            plain["ended_by"] = self.ended_by
        if self.head is not None:
            plain["head"] = {"seq": self.head[0], "hash": self.head[1]}
        return plain


def taken(event: Event, status: int, placed: Placed, *, reason: str = "", message: str = "") -> Answer:
    """Return the answer to an event that is on the log."""
    return Answer(
        status,
        appended=True,
        event_id=event.event_id,
        audit_id=audit_id(event.reservation),
        n=placed.n,
        received_at=placed.received_at,
        hash=event.hash,
        leaf=placed.leaf.hex(),
        reason=reason,
        message=message,
    )


def denied(event: Event, placed: Placed, reason: str, message: str) -> Answer:
    """Return the answer to a reservation that central's policy forbids; both rows are on the log."""
    return taken(event, 403, placed, reason=reason, message=message)


def refused(
    event: Event, status: int, reason: str, message: str, *, ended_by: str = "", head: tuple[int, str] | None = None
) -> Answer:
    """Return the answer to an event of which nothing is on the log."""
    return Answer(
        status,
        appended=False,
        event_id=event.event_id,
        audit_id=audit_id(event.reservation),
        reason=reason,
        message=message,
        ended_by=ended_by,
        head=head,
    )
