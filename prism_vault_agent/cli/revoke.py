"""``prism-vault revoke``: end what an agent run started with secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import show, socket
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.errors import Unavailable

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

# A scope's grace is an hour at most, but nobody waits that long at a prompt: the agent goes on after we stop waiting.
SECONDS: Final = 120.0


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("revoke", help=COMMANDS["revoke"][1], description=COMMANDS["revoke"][1])
    parser.add_argument("--run-ref", metavar="REF", required=True, help="the run, as it was named to exec")
    parser.add_argument("--json", action="store_true", help="the agent's own answer, as JSON")
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """End the run's processes and say how each ended; 75 where one did not."""
    told = socket.ask(socket.find(args.socket), "POST", "/v1/revoke", {"run_ref": args.run_ref}, seconds=SECONDS)[1]
    failed = told.get("failed", [])
    if args.json:
        print(show.dump(told))
    else:
        for end in told.get("ended", []):
            print(f"pid {show.text(end.get('pid'))}: {show.text(end.get('how'))}")
    if failed:
        why = "; ".join(f"pid {show.text(end.get('pid'))}: {show.text(end.get('why'))}" for end in failed)
        raise Unavailable(f"not everything ended: {why}", mend="see the agent's log")
    return 0
