"""``prism-vault render``: render the files of scopes now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import show, socket
from prism_vault_agent.cli.main import COMMANDS

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

SECONDS: Final = 35.0  # of each scope: longer than the agent tries


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("render", help=COMMANDS["render"][1], description=COMMANDS["render"][1])
    parser.add_argument("scopes", nargs="+", metavar="SCOPE", help="the scope; several are rendered one after the other")
    socket.add_request(parser)
    parser.add_argument("--json", action="store_true", help="the agent's own answer, as JSON")
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Render and say where the files are."""
    seconds = SECONDS * len(args.scopes)
    told = socket.ask(socket.find(args.socket), "POST", "/v1/render", socket.request(args), seconds=seconds)[1]
    if args.json:
        print(show.dump(told))
        return 0
    for each in told.get("rendered", []):
        print(f"{show.text(each.get('scope'))}: generation {show.text(each.get('generation'))} ({show.text(each.get('id'))})")
        for path in each.get("files", []):
            print(f"  {show.text(each.get('directory'))}/{show.text(path)}")
    return 0
