"""``prism-vault revoke``: take back what is out there of a scope, a secret or an agent run on this host."""

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
    parser = commands.add_parser("revoke", help=COMMANDS["revoke"][1], description=COMMANDS["revoke"][1])
    parser.add_argument("what", nargs="?", metavar="SCOPE|REF", help="a scope, or a secret: vault://MOUNT/PATH[#KEY][?version=N]")
    parser.add_argument("--run-ref", metavar="REF", help="a run, as it was named to exec")
    parser.add_argument("--json", action="store_true", help="the agent's own answer, as JSON")
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Take it back, and say what is gone and how each process ended; 75 where something is left."""
    return verbs.revoke(args, os.environb)
