"""``prism-vault rotate``: have this host's agent look for newer values now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prism_vault_agent.cli import socket
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.steer import verbs

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
    return verbs.rotate(args, os.environb)
