"""The checker: what must be true of the audit log after any fault (I1-I3, I7 of the fault catalogue), read from central."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from prism_vault_agent.audit.event import FIRST, digest

ENDS = ("success", "denied", "failure", "abandoned")
# What an operator did: of no reservation.
ALONE = ("admin", "policy")


def by_reservation(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the fields of all events, by reservation, in the order of the log."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["fields"]["kind"] not in ALONE:
            rows[event["fields"]["reservation"]].append(event["fields"])
    return dict(rows)


def open_reservations(events: list[dict[str, Any]]) -> list[str]:
    """Return the reservations that have not ended."""
    all_kinds = {name: [row["kind"] for row in rows] for name, rows in by_reservation(events).items()}
    return [name for name, found in all_kinds.items() if "reserved" in found and not set(ENDS) & set(found)]


def check(events: list[dict[str, Any]]) -> None:
    """Fail unless each reservation has one beginning and one end, what was taken back had been given, and chains have no gap."""
    assert not open_reservations(events)
    for rows in by_reservation(events).values():
        found = [row["kind"] for row in rows]
        assert sum(found.count(end) for end in ENDS) == 1, found
        assert found[0] == "reserved" or found == ["denied"], found
        assert found.count("reserved") <= 1, found
        if "cleared" in found:
            assert found.index("success") < found.index("cleared"), found
            assert found.count("cleared") == 1, found
    assert len({event["fields"]["event_id"] for event in events}) == len(events)
    heads: dict[tuple[str, str], tuple[int, str]] = {}
    for event in events:
        fields = event["fields"]
        chain = (fields["host"], fields["epoch"])
        seq, prev = heads.get(chain, (0, FIRST))
        assert (fields["seq"], fields["prev"]) == (seq + 1, prev), fields
        heads[chain] = (fields["seq"], digest(event["body"].encode()))


def kinds(rows: list[dict[str, Any]]) -> list[str]:
    """Return the kinds of these rows, without the ends of runs."""
    return [row["kind"] for row in rows if row["kind"] != "cleared" or row["reason"] == "not_delivered"]


def released(events: list[dict[str, Any]]) -> list[str]:
    """Return the reservations whose values the log says to have been given out and not taken back undelivered."""
    return [
        name
        for name, rows in by_reservation(events).items()
        if any(row["kind"] == "success" for row in rows) and not any(row.get("reason") == "not_delivered" for row in rows)
    ]
