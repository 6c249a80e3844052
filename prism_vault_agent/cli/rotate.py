"""``prism-vault rotate``: have this host's agent look for newer values now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.cli import show, socket
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.cli.revoke import conditions

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("rotate", help=COMMANDS["rotate"][1], description=COMMANDS["rotate"][1])
    parser.add_argument("what", nargs="+", metavar="SCOPE|REF", help="a scope, or a secret: vault://MOUNT/PATH[#KEY]")
    parser.add_argument("--json", action="store_true", help="the agent's own answers, as JSON")
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Have each be looked at, and say how much of it there is; none is no error."""
    for what in args.what:
        told = socket.ask(socket.find(args.socket), "POST", "/v1/rotate", conditions(what))[1]
        if args.json:
            print(show.dump(told))
        else:
            print(f"{show.text(what)}: {told.get('files', 0)} sets of files, {told.get('runs', 0)} runs")
    return 0
