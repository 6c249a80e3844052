"""`prism-vault central revocations`: which there were, and what became of one, host by host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.cli import show
from prism_vault_agent.cli.central_client import CentralClient, add_options
from prism_vault_agent.cli.central_evidence import evidence, target, unfinished

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers


def add(actions: Subparsers) -> None:
    """Add the action's parser."""
    parser = actions.add_parser(
        "revocations",
        help="show the newest revocations, or what became of one on each host",
        description="Show the newest revocations, or one with every host: exit status 75 where not everything is cleared.",
    )
    parser.add_argument("id", nargs="?", type=int, metavar="ID", help="of one revocation")
    parser.add_argument("--json", action="store_true", help="central's own answer, as JSON")
    add_options(parser)
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Show them; return 0, or raise ``Unavailable`` where the one that was asked for is not complete."""
    central = CentralClient(args)
    if args.id is None:
        listed = central.ask("GET", "/v1/revocations")
        rows = [
            [each["id"], each["by"], "yes" if each["emergency"] else "no", target(each), each["answered"], each["audit_id"]]
            for each in listed["revocations"]
        ]
        head = ("ID", "BY", "EMERGENCY", "OF", "ANSWERED", "AUDIT ID")
        print(show.dump(listed) if args.json else show.table(head, rows), end="\n" if args.json else "")
        return 0
    found = central.ask("GET", f"/v1/revocations/{args.id}")
    print(show.dump(found) if args.json else evidence(found), end="\n" if args.json else "")
    if not found["complete"]:
        raise unfinished(found)
    return 0
