"""``prism-vault revoke``: take back what is out there of a scope, a secret or an agent run on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.cli import show, socket
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.errors import Unavailable, UsageError

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

# A scope's grace is an hour at most, but nobody waits that long at a prompt: the agent goes on after we stop waiting.
SECONDS: Final = 120.0


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("revoke", help=COMMANDS["revoke"][1], description=COMMANDS["revoke"][1])
    parser.add_argument("what", nargs="?", metavar="SCOPE|REF", help="a scope, or a secret: vault://MOUNT/PATH[#KEY][?version=N]")
    parser.add_argument("--run-ref", metavar="REF", help="a run, as it was named to exec")
    parser.add_argument("--json", action="store_true", help="the agent's own answer, as JSON")
    socket.add_option(parser)


def conditions(what: str) -> dict[str, str]:
    """Return what a request about a scope or a secret says."""
    return {"reference" if what.startswith("vault://") else "scope": what}


def run(args: argparse.Namespace) -> int:
    """Take it back, and say what is gone and how each process ended; 75 where something is left."""
    if bool(args.what) == bool(args.run_ref):
        raise UsageError("revoke takes a scope, a secret, or --run-ref", mend="name what is to be taken back")
    asked = conditions(args.what) if args.what else {"run_ref": args.run_ref}
    told = socket.ask(socket.find(args.socket), "POST", "/v1/revoke", asked, seconds=SECONDS)[1]
    failed = told.get("failed", [])
    if args.json:
        print(show.dump(told))
    else:
        for each in told.get("cleared", []):
            print(f"{show.text(each.get('scope'))}: cleared {show.text(each.get('files'))}")
        for end in told.get("ended", []):
            print(f"pid {show.text(end.get('pid'))}: {show.text(end.get('how'))}")
    if failed:
        why = "; ".join(f"{_name(each)}: {show.text(each.get('why'))}" for each in failed)
        raise Unavailable(f"not everything was taken back: {why}", mend="see the agent's log")
    return 0


def _name(given: dict[str, Any]) -> str:
    return f"scope {show.text(given['scope'])}" if "scope" in given else f"pid {show.text(given.get('pid'))}"
