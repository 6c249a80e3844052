"""``prism-vault audit tail|find|show|export|verify``: what the audit log says, and whether it is whole."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import central_client

if TYPE_CHECKING:
    from prism_vault_agent.cli.main import Subparsers

FILTERS: Final = ("scope", "host", "run-ref", "job-id", "purpose", "kind")
OUTCOMES: Final = ("success", "failure", "denied", "abandoned")
_LOG_KEY: Final = "the verifying key of the log, name+hash+base64; may be given several times"


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
    find.add_argument("--outcome", choices=OUTCOMES, help="how a reservation ended")
    find.add_argument("--since", metavar="TIME", help="since 30s, 10m, 2h or 7d ago, or an ISO 8601 time")
    find.add_argument("--until", metavar="TIME", help="until then, and without it; as --since")
    shown = commands.add_parser(
        "show",
        help="every event of one reservation, and the proof that it is on the log",
        description="Show every event of one reservation, and prove that each is in the tree of a signed checkpoint.",
    )
    shown.add_argument("audit_id", metavar="AUDIT_ID", help="pva_...")
    export = commands.add_parser(
        "export",
        help="the whole log as JSON lines, with its checkpoint",
        description="Copy the log in its final order, up to the newest checkpoint. The last line is the checkpoint.",
    )
    export.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="written whole or not at all (default: standard output)"
    )
    verify = commands.add_parser(
        "verify",
        help="recompute everything; exit status 65 names the first bad index",
        description="Recompute every row, chain, reservation, leaf and checkpoint of central's log, a database or an export. "
        "Exit status 65 where the log is not whole.",
    )
    source = verify.add_mutually_exclusive_group()
    source.add_argument(
        "--database", metavar="DATABASE", help="a file of central's or a copy, or postgresql://ROLE@HOST/DATABASE"
    )
    source.add_argument("--export", metavar="FILE", help="what audit export wrote; - is standard input")
    for option, metavar, told in (
        ("--note", "FILE", "a checkpoint that somebody holds: it must be one of this log"),
        ("--head", "FILE", "where a host's chain stood, as GET /v1/audit/head tells: it must be in the log"),
        ("--receipt", "FILE", "answers of central with their receipts: their rows must be in the log"),
    ):
        verify.add_argument(
            option, action="append", default=[], type=Path, metavar=metavar, help=f"{told}; may be given several times"
        )
    for command in (shown, verify):
        command.add_argument("--log-key", action="append", default=[], metavar="KEY", help=_LOG_KEY)
    for command in (tail, find, shown, verify):
        command.add_argument("--json", action="store_true", help="one JSON object a line")
    for command in (tail, find, shown, export, verify):
        central_client.add_options(command)
        command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; return 0, or raise the typed error of what failed."""
    if args.audit_command == "verify":
        from prism_vault_agent.cli.audit_verify import verify  # noqa: PLC0415 - each command loads what it needs

        return verify(args)
    if args.audit_command == "export":
        from prism_vault_agent.cli.audit_export import export  # noqa: PLC0415

        return export(args)
    from prism_vault_agent.cli import audit_read  # noqa: PLC0415

    return {"tail": audit_read.tail, "find": audit_read.find, "show": audit_read.show}[args.audit_command](args)
