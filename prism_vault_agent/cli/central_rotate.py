"""`prism-vault central rotate`: tell all hosts that newer values exist, so that they look at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.cli import show
from prism_vault_agent.cli.central_client import CentralClient, add_options
from prism_vault_agent.cli.central_revoke import order

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

REFERENCE: Final = "vault://"


def add(actions: Subparsers) -> None:
    """Add the action's parser."""
    parser = actions.add_parser(
        "rotate",
        help="have all hosts look for newer versions of a scope or secret now",
        description="Have every host look for newer versions at once. Each is a rotation of its own on the audit log.",
    )
    parser.add_argument("what", nargs="+", metavar="SCOPE|REF", help="a scope, or a secret: vault://MOUNT/PATH[#KEY]")
    parser.add_argument("--project", metavar="PROJECT", help="within this project; else within all of the operator's")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for the record; no secrets")
    parser.add_argument("--timeout", type=float, default=20.0, metavar="SECONDS", help="try so long (default 20)")
    add_options(parser)
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Order each rotation; return 0, or raise what central answers."""
    central = CentralClient(args)
    for what in args.what:
        kind = "reference" if what.startswith(REFERENCE) else "scope"
        body = {"id": new_id(), "reason": args.reason, kind: what, **({"project": args.project} if args.project else {})}
        placed = order(central, "/v1/rotations", body, time.monotonic() + args.timeout)
        print(f"rotation {placed['id']} of {kind} {show.text(what)} is on the log ({placed['audit_id']})")
    return 0
