"""`prism-vault central serve`: the service itself. Needs the extra ``central``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers


def add(actions: Subparsers) -> None:
    """Add the action's parser."""
    parser = actions.add_parser(
        "serve",
        help="serve until SIGTERM",
        description="Serve until SIGTERM. The first line on stdout is the URL that is listened on.",
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="central's TOML configuration")
    parser.add_argument("--migrate", action="store_true", help="bring the database to this version's schema first")
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Serve; return the exit status. Raises ``ConfigError`` and ``CannotCreate`` with what to do next."""
    from prism_vault_agent.central.serve import serve  # noqa: PLC0415 - a second of imports that no other command needs

    return serve(args.config, migrate_first=args.migrate)
