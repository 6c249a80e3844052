"""``prism-vault clear``: take the rendered files of scopes away, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.cli import show, socket
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.errors import Unavailable, UsageError

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("clear", help=COMMANDS["clear"][1], description=COMMANDS["clear"][1])
    parser.add_argument("scopes", nargs="*", metavar="SCOPE", help="the scope")
    parser.add_argument("--all", action="store_true", help="everything that you may clear")
    parser.add_argument("--json", action="store_true", help="the agent's own answer, as JSON")
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Clear and say what is gone; nothing to clear is no error. 75 where something could not be cleared."""
    if bool(args.scopes) == args.all:
        raise UsageError("clear takes scopes, or --all", mend="name what is to be cleared")
    told = socket.ask(socket.find(args.socket), "POST", "/v1/clear", {"scopes": args.scopes, "all": args.all})[1]
    failed = told.get("failed", [])
    if args.json:
        print(show.dump(told))
    else:
        for each in told.get("cleared", []):
            print(f"{show.text(each.get('scope'))}: cleared {show.text(each.get('files'))}")
        if not told.get("cleared") and not failed:
            print("nothing of it was rendered")
    if failed:
        why = "; ".join(f"{show.text(each.get('scope'))}: {show.text(each.get('why'))}" for each in failed)
        raise Unavailable(f"not everything was cleared: {why}", mend="see the agent's log")
    return 0
