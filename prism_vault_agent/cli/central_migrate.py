"""`prism-vault central migrate`: the database's schema. Needs the extra ``central``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers


def add(actions: Subparsers) -> None:
    """Add the action's parser."""
    parser = actions.add_parser(
        "migrate",
        help="make or upgrade the database",
        description="Make the database, or bring it to this version's schema, in one transaction. Stop central before.",
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="central's TOML configuration")
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Migrate; return the exit status. Raises ``ConfigError`` with what to do next."""
    from prism_vault_agent.central.config import load  # noqa: PLC0415 - a second of imports that no other command needs
    from prism_vault_agent.central.storage.engines import migrate  # noqa: PLC0415 - as above

    config = load(args.config)
    before, after = migrate(config.database, config.database_owner)
    told = "was already at" if before == after else "is now at"
    print(f"{config.database} {told} revision {after}")
    return 0
