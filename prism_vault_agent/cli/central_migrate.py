"""`prism-vault central migrate`: the database's schema. Needs the extra ``central``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prism_vault_agent.cli.steps import Steps

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers


def add(actions: Subparsers) -> None:
    """Add the action's parser."""
    parser = actions.add_parser(
        "migrate",
        help="make or upgrade the database",
        description="Make the database, or bring it to this version's schema, in one transaction. Stop central before.",
        epilog="Where there are events, a backup is taken first, restored to a scratch database and checked there.",
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="central's TOML configuration")
    parser.add_argument("--backup", type=Path, metavar="FILE", help="where the backup goes (default: beside a database file)")
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Migrate; return the exit status. Raises what kept it from that, and then nothing was changed."""
    from prism_vault_agent.central.config import load  # noqa: PLC0415 - a second of imports that no other command needs
    from prism_vault_agent.central.upgrade import migrate_checked  # noqa: PLC0415 - as above

    config = load(args.config)
    with Steps() as say:
        before, after = migrate_checked(config, args.backup, say)
    told = "was already at" if before == after else "is now at"
    print(f"{config.database} {told} revision {after}")
    return 0
