"""`prism-vault central revoke`: the kill switch. Orders a revocation, follows it host by host, and shows the evidence."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.cli import show
from prism_vault_agent.cli.central_client import CentralClient, add_options
from prism_vault_agent.cli.central_evidence import evidence, progress, unfinished
from prism_vault_agent.errors import AuditUnavailable, UsageError

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers
    from prism_vault_agent.cli.show import Json

LOOK_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 1.0
CONDITIONS: Final = ("scope", "reference", "host", "run_ref")


def add(actions: Subparsers) -> None:
    """Add the action's parser."""
    parser = actions.add_parser(
        "revoke",
        help="have all hosts end what a scope, secret, host or run has, and see that they did",
        description="Have every host end what fulfils all conditions, and wait until each has said so. "
        "Exit status 0 only where all that is concerned was cleared, else 75.",
        epilog="Ctrl-C stops the waiting, not the revocation. What became of it: prism-vault central revocations ID.",
    )
    parser.add_argument("--scope", metavar="SCOPE", help="runs that have this scope")
    parser.add_argument("--reference", metavar="REF", help="runs that have this secret: vault://MOUNT/PATH[#KEY][?version=N]")
    parser.add_argument("--host", metavar="HOST", help="runs on this host")
    parser.add_argument("--run-ref", metavar="REF", help="the runs of this reference, on any host")
    parser.add_argument("--everything", action="store_true", help="everything that was given out")
    parser.add_argument("--project", metavar="PROJECT", help="within this project; else within all of the operator's")
    parser.add_argument("--emergency", action="store_true", help="kill at once, without a time to end in")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for the record; no secrets")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the hosts")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="wait so long (default 60)")
    parser.add_argument("--json", action="store_true", help="central's own answer, as JSON")
    add_options(parser)
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Revoke; return 0, or raise ``Unavailable`` where not everything is known to be cleared."""
    conditions = {name: getattr(args, name) for name in CONDITIONS if getattr(args, name)}
    if args.everything is bool(conditions):
        raise UsageError("say what to revoke: --everything, or conditions", mend="see prism-vault central revoke --help")
    central = CentralClient(args)
    body = {"id": new_id(), "reason": args.reason, "emergency": args.emergency, "everything": args.everything, **conditions}
    if args.project:
        body["project"] = args.project
    until = time.monotonic() + args.timeout
    placed = order(central, "/v1/revocations", body, until)
    _say(f"revocation {placed['id']} is on the log ({placed['audit_id']})")
    if args.no_wait:
        if args.json:
            print(show.dump(placed))
        return 0
    found = _follow(central, placed["id"], until)
    print(show.dump(found) if args.json else evidence(found), end="\n" if args.json else "")
    if not found["complete"]:
        raise unfinished(found)
    if not any(each["cleared"] for each in found["hosts"]):
        _say("nothing of that was out there: is it spelled as prism-vault audit find --outcome success shows it?")
    return 0


def order(central: CentralClient, path: str, body: Json, until: float) -> Json:
    """Place an order, and place the same one again while central does not answer, until a time (CLOCK_MONOTONIC)."""
    while True:
        try:
            return central.ask("POST", path, json=body)
        except AuditUnavailable as error:
            if time.monotonic() > until:
                raise
            _say(f"{error.line()}; the same order is sent again")
            time.sleep(RETRY_SECONDS)
        except KeyboardInterrupt:
            _say(f"interrupted before central answered: see prism-vault audit show pva_{body['id']}")
            raise


def _follow(central: CentralClient, number: int, until: float) -> Json:
    """Tell each change until all is cleared or the time is up, and return what is known then."""
    known: dict[str, str] = {}
    found: Json = {}
    try:
        while not found or (not found["complete"] and time.monotonic() < until):
            time.sleep(LOOK_SECONDS)
            try:
                found = central.ask("GET", f"/v1/revocations/{number}")
            except AuditUnavailable as error:
                if time.monotonic() > until:
                    raise
                _say(error.line())
                continue
            now = progress(found)
            for name, told in now.items():
                if known.get(name) != told:
                    _say(f"{name}{told}")
            known = now
    except KeyboardInterrupt:
        _say(f"interrupted; the revocation goes on: prism-vault central revocations {number}")
        raise
    return found


def _say(line: str) -> None:
    print(show.text(line), file=sys.stderr, flush=True)
