"""``prism-vault clear``: take the rendered files of scopes away, at once."""

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
    parser = commands.add_parser("clear", help=COMMANDS["clear"][1], description=COMMANDS["clear"][1])
    parser.add_argument("scopes", nargs="*", metavar="SCOPE", help="the scope")
    parser.add_argument("--all", action="store_true", help="everything that you may clear")
    parser.add_argument("--json", action="store_true", help="the agent's own answer, as JSON")
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Clear and say what is gone; nothing to clear is no error. 75 where something could not be cleared."""
    return verbs.clear(args, os.environb)
