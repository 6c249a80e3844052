"""``prism-vault helper``: what an agent that is not root has done for it; started by systemd when the agent asks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prism_vault_agent.cli.agent import add_config
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("helper", help=COMMANDS["helper"][1], description=COMMANDS["helper"][1])
    add_config(parser)
    parser.add_argument("--user", metavar="NAME", default="prism-vault", help="the agent's user (default: prism-vault)")
    parser.add_argument("--unit", metavar="UNIT", default="", help="serve processes of this unit of systemd alone")
    parser.add_argument("--socket", metavar="PATH", help="listen here, where systemd passes no socket")
    parser.add_argument("--idle", metavar="SECONDS", default="30", help="end when nobody has asked for so long; 0: never")


def run(args: argparse.Namespace) -> int:
    """Serve until nobody asks."""
    from prism_vault_agent.helper.listening import listening  # noqa: PLC0415 - as below
    from prism_vault_agent.helper.serve import Served, serve  # noqa: PLC0415 - --help needs no socket
    from prism_vault_agent.process import harden  # noqa: PLC0415 - as above

    if not args.idle.isascii() or not args.idle.isdigit():
        raise UsageError("--idle is no whole number of seconds", mend="write for instance --idle 30")
    harden("prism-vault helper")
    with listening(args.socket, os.environ, args.user) as listener:
        serve(listener, Served(args.user, args.unit, args.config, dict(os.environ)), float(args.idle))
    return 0
