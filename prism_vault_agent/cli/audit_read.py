"""``prism-vault audit tail|find|show``."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli.audit import FILTERS
from prism_vault_agent.cli.audit_proof import keys_of, prove
from prism_vault_agent.cli.audit_table import Printer
from prism_vault_agent.cli.central_client import PAGE, CentralClient
from prism_vault_agent.errors import SecretNotFound, UsageError

if TYPE_CHECKING:
    import argparse

WAIT: Final = 20  # the longest that central takes a question for
_AGO: Final = re.compile(r"(?P<number>[1-9][0-9]{0,5})(?P<unit>[smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AUDIT_ID: Final = re.compile(r"(pva_)?[0-9a-f]{32}")


def tail(args: argparse.Namespace) -> int:
    """Print the newest events, and with ``--follow`` those that come, in the final order of the log."""
    if not 1 <= args.lines <= PAGE:
        raise UsageError(f"--lines is a number from 1 to {PAGE}")
    central = CentralClient(args)
    printer = Printer(as_json=args.json)
    rows, after, _ = central.log(last=args.lines)
    printer.print(rows)
    while args.follow:
        sys.stdout.flush()
        rows, after, _ = central.log(from_=after, wait=WAIT)
        printer.print(rows)
    return 0


def find(args: argparse.Namespace) -> int:
    """Print the events that match every filter."""
    filters: dict[str, object] = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in FILTERS}
    filters |= {"outcome": args.outcome, "since": _time("--since", args.since), "until": _time("--until", args.until)}
    printer = Printer(as_json=args.json)
    events = CentralClient(args).events(**filters)
    while some := list(islice(events, PAGE)):
        printer.print(some)
    return 0


def show(args: argparse.Namespace) -> int:
    """Print every event of a reservation with the proof that it is on the log. Raises ``IntegrityError`` for one that fails."""
    if not _AUDIT_ID.fullmatch(args.audit_id):
        raise UsageError("an audit id is pva_ and 32 hex digits", mend="take it from an error message or from audit find")
    central = CentralClient(args)
    events = list(central.events(reservation=args.audit_id))
    if not events:
        message, mend = "the log has no such audit id that you may see", "check it, or ask an operator of its project"
        raise SecretNotFound(message, mend=mend, reason="audit_id_not_found")
    if not args.json:
        Printer(as_json=False).print(events)
        print()
    keys, pinned = keys_of(central, args.log_key)
    for event in events:
        proof = prove(central, event, keys, pinned=pinned)
        if args.json:
            Printer(as_json=True).print([{**event, "proof": proof and proof.plain()}])
        else:
            print(proof.line() if proof else f"event {event['n']} is not proved: no checkpoint is about it yet")
    return 0


def _time(option: str, text: str | None) -> int | None:
    """Return milliseconds since 1970 for a time or for how long ago."""
    if text is None:
        return None
    if (match := _AGO.fullmatch(text)) is not None:
        when = datetime.now(UTC) - timedelta(**{_UNITS[match["unit"]]: int(match["number"])})
    else:
        try:
            when = datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            raise UsageError(
                f"{option} is neither a duration nor a time", mend="write 10m, 2h, or 2026-01-31T12:00:00Z"
            ) from None
    return int(when.timestamp() * 1000)
