"""``prism-vault import``: scopes from what other programs are configured by."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli.main import COMMANDS

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

ACTIONS: Final = {"env": "prism_vault_agent.cli.import_env", "vault-agent": "prism_vault_agent.cli.import_vault_agent"}


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("import", help=COMMANDS["import"][1], description=COMMANDS["import"][1])
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for module in ACTIONS.values():
        importlib.import_module(module).add(actions)


def run(args: argparse.Namespace) -> int:
    """Do the import; see its module."""
    status: int = importlib.import_module(ACTIONS[args.action]).run(args)
    return status
