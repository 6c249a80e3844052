"""`prism-vault central`: the central service and what its operators do. Each action is a module of its own.

An action's module has ``add(actions)``, which adds its parser and says what runs it: ``set_defaults(act=...)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli import (
    central_backup,
    central_keygen,
    central_migrate,
    central_policy,
    central_purge,
    central_revocations,
    central_revoke,
    central_rotate,
    central_serve,
    central_token,
)

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

ACTIONS: Final = (
    central_serve,
    central_migrate,
    central_backup,
    central_purge,
    central_keygen,
    central_rotate,
    central_revoke,
    central_revocations,
    central_token,
    central_policy,
)


def add(subparsers: Subparsers) -> None:
    """Add ``central`` and its actions."""
    parser = subparsers.add_parser(
        "central",
        help="serve the audit log and its policy",
        description="The central service: takes every host's audit events, decides reservations, answers who did what.",
    )
    actions = parser.add_subparsers(dest="central_command", required=True, metavar="COMMAND")
    for action in ACTIONS:
        action.add(actions)


def run(args: argparse.Namespace) -> int:
    """Do the action; return the exit status. Raises what it raises."""
    status: int = args.act(args)
    return status
