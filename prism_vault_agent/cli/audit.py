"""``prism-vault audit tail|find|show|verify``: what the audit log says, and whether it is whole."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import IntegrityError, SecretNotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prism_vault_agent.central.log.verify import Row
    from prism_vault_agent.cli.audit_source import Central
    from prism_vault_agent.cli.main import Subparsers

FOLLOW_SECONDS: Final = 1.0
FILTERS: Final = ("scope", "host", "run-ref", "job-id", "purpose", "kind")
_AGO: Final = re.compile(r"(?P<number>[1-9][0-9]{0,5})(?P<unit>[smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AUDIT_ID: Final = re.compile(r"(pva_)?[0-9a-f]{32}")


def add(subparsers: Subparsers) -> None:
    """Add ``audit`` and its subcommands."""
    told = "read and verify the audit log"
    parser = subparsers.add_parser("audit", help=told, description=told)
    commands = parser.add_subparsers(dest="audit_command", required=True, metavar="COMMAND")
    tail = commands.add_parser("tail", help="the newest events")
    tail.add_argument("-n", "--lines", type=int, default=20, metavar="N", help="how many (default 20)")
    tail.add_argument("-f", "--follow", action="store_true", help="and those that come, until Ctrl-C")
    find = commands.add_parser("find", help="events that match every filter")
    for name in FILTERS:
        find.add_argument(f"--{name}", metavar=name.upper())
    find.add_argument("--since", metavar="TIME", help="since 30s, 10m, 2h or 7d ago, or an ISO 8601 time")
    shown = commands.add_parser("show", help="every event of one reservation")
    shown.add_argument("audit_id", metavar="AUDIT_ID", help="pva_...")
    verify = commands.add_parser(
        "verify",
        help="recompute every chain; exit status 65 names the first bad index",
        description="Recompute every host's chain from the rows. Exit status 65 where the log is not whole.",
    )
    verify.add_argument("--database", type=Path, metavar="FILE", help="a database file of central's or a copy, not its URL")
    for command in (tail, find, shown, verify):
        command.add_argument("--json", action="store_true", help="one JSON object a line")
        command.add_argument("--url", metavar="URL", help="central's URL (default PRISM_VAULT_CENTRAL_URL)")
        command.add_argument("--token-file", type=Path, metavar="FILE", help="instead of PRISM_VAULT_OPERATOR_TOKEN")
        command.add_argument("--ca-file", metavar="FILE", help="the authority of central's certificate")
        command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; return 0, or raise the typed error of what failed."""
    return {"tail": _tail, "find": _find, "show": _show, "verify": _verify}[args.audit_command](args)


def _central(args: argparse.Namespace) -> Central:
    from prism_vault_agent.cli.audit_source import Central  # noqa: PLC0415 - not for --help

    return Central(args.url, args.token_file, args.ca_file)


def _tail(args: argparse.Namespace) -> int:
    from prism_vault_agent.cli.audit_table import Printer  # noqa: PLC0415

    if not 1 <= args.lines <= 1000:
        raise UsageError("--lines is a number from 1 to 1000")
    central = _central(args)
    printer = Printer(as_json=args.json)
    events = central.page(last=args.lines)["events"]
    printer.print(events)
    after = events[-1]["n"] if events else 0
    while args.follow:
        sys.stdout.flush()
        time.sleep(FOLLOW_SECONDS)
        page = central.page(after=after, limit=1000)
        printer.print(page["events"])
        after = page["events"][-1]["n"] if page["events"] else page["next"] or after
    return 0


def _find(args: argparse.Namespace) -> int:
    from prism_vault_agent.cli.audit_table import Printer  # noqa: PLC0415

    filters: dict[str, object] = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in FILTERS}
    filters["since"] = _since(args.since)
    printer = Printer(as_json=args.json)
    central = _central(args)
    after: int | None = 0
    while after is not None:
        page = central.page(**filters, after=after, limit=1000)
        printer.print(page["events"])
        after = page["next"]
    return 0


def _show(args: argparse.Namespace) -> int:
    from prism_vault_agent.cli.audit_table import Printer  # noqa: PLC0415

    if not _AUDIT_ID.fullmatch(args.audit_id):
        raise UsageError("an audit id is pva_ and 32 hex digits", mend="take it from an error message or from audit find")
    if not Printer(as_json=args.json).print(_central(args).events(reservation=args.audit_id)):
        message, mend = "the log has no such audit id that you may see", "check it, or ask an operator of its project"
        raise SecretNotFound(message, mend=mend, reason="audit_id_not_found")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from prism_vault_agent.central.log.verify import verify  # noqa: PLC0415
    from prism_vault_agent.cli.audit_source import rows_of_file  # noqa: PLC0415

    rows: Iterable[Row] = rows_of_file(args.database) if args.database else _central(args).rows()
    verdict = verify(rows)
    fault = verdict.fault
    if args.json:
        told = {"rows": verdict.rows, "chains": verdict.chains, "first_bad": None, "what": None}
        print(json.dumps(told | ({"first_bad": fault.n, "what": fault.what} if fault else {})))
    elif fault is None:
        print(f"{verdict.rows} events in {verdict.chains} chains: every chain and every reservation is whole")
    if fault is not None:
        raise IntegrityError(
            f"the log is not whole: first bad index {fault.n}: {fault.what}",
            mend="keep the file as it is, and compare it with a backup and with the agents' heads",
        )
    return 0


def _since(text: str | None) -> int | None:
    """Return milliseconds since 1970 for a time or for how long ago."""
    if text is None:
        return None
    if (match := _AGO.fullmatch(text)) is not None:
        when = datetime.now(UTC) - timedelta(**{_UNITS[match["unit"]]: int(match["number"])})
    else:
        try:
            when = datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            raise UsageError("--since is neither a duration nor a time", mend="write 10m, 2h, or 2026-01-31T12:00:00Z") from None
    return int(when.timestamp() * 1000)
