"""``prism-vault render``: render the files of scopes now; what runs is :mod:`prism_vault_agent.steer`."""

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
    parser = commands.add_parser("render", help=COMMANDS["render"][1], description=COMMANDS["render"][1])
    parser.add_argument("scopes", nargs="+", metavar="SCOPE", help="the scope; several are rendered one after the other")
    socket.add_request(parser)
    parser.add_argument("--json", action="store_true", help="the agent's own answer, as JSON")
    socket.add_option(parser)


def run(args: argparse.Namespace) -> int:
    """Render and say where the files are."""
    return verbs.render(args, os.environb)
