"""How the audit commands show events: aligned columns for people, one JSON object a line for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from prism_vault_agent.audit.event import audit_id
from prism_vault_agent.cli import show

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prism_vault_agent.cli.show import Json

HEAD: Final = ("n", "time", "host", "kind", "scope", "purpose", "caller", "run/job", "audit id", "reason")
TOLD: Final = ("n", "index", "received_at", "hash", "leaf", "proof")


class Printer:
    """Prints events as they come; columns stay aligned across calls."""

    def __init__(self, *, as_json: bool) -> None:
        """Print JSON lines or a table."""
        self._json = as_json
        self._widths: list[int] = []

    def print(self, events: Iterable[Json]) -> int:
        """Print events and return how many there were."""
        events = list(events)
        if self._json:
            for event in events:
                print(line(event))
        elif events:
            rows = [cells(event) for event in events]
            first = not self._widths
            shown = [list(HEAD), *rows] if first else rows
            present = self._widths or [0] * len(HEAD)
            self._widths = [max(width, *(len(row[at]) for row in shown)) for at, width in enumerate(present)]
            for row in shown:
                print("  ".join(cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)).rstrip())
        return len(events)


def line(event: Json) -> str:
    """Return an event as one line of JSON; ``event`` is what its bytes say."""
    told: Json = {name: event[name] for name in TOLD if name in event}
    if "event_id" in event:
        told |= {"time": _time(event), "audit_id": audit_id(event["reservation_id"]), "event": _fields(event)}
    return json.dumps(told, separators=(",", ":"))


def cells(event: Json) -> list[str]:
    """Return the columns of an event, each on one printable line."""
    if "event_id" not in event:
        return [str(event["n"]), *["-"] * (len(HEAD) - 2), "its event is missing: run prism-vault audit verify"]
    fields = _fields(event)
    caller = fields.get("caller")
    who = None
    if isinstance(caller, dict):
        parts = (caller.get("kind"), None if caller.get("uid") is None else f"uid {caller['uid']}")
        who = "/".join(part for part in parts if isinstance(part, str))
    host = event["host_id"] if fields.get("about_host") is None else f"{event['host_id']} ({fields['about_host']})"
    reason = fields.get("reason")
    message = fields.get("message")
    values = (
        event["n"],
        _time(event),
        host,
        event["kind"],
        fields.get("scopes"),
        fields.get("purpose"),
        who,
        fields.get("run_ref") or fields.get("job_id"),
        audit_id(event["reservation_id"]),
        f"{reason}: {message}" if reason and message else reason,
    )
    return [show.text(value) for value in values]


def _fields(event: Json) -> Json:
    try:
        fields = json.loads(event["body"])
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _time(event: Json) -> str:
    return datetime.fromtimestamp(event["received_at"] / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
