"""`prism-vault central serve|migrate`: the central service. Needs the extra ``central``."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from prism_vault_agent.cli.main import Subparsers

_NEEDED = ("alembic", "fastapi", "httptools", "jwt", "sqlalchemy", "uvicorn", "uvloop")


def add(subparsers: Subparsers) -> None:
    """Add ``central`` and its subcommands."""
    parser = subparsers.add_parser(
        "central",
        help="serve the audit log and its policy",
        description="The central service: takes every host's audit events, decides reservations, answers who did what.",
    )
    commands = parser.add_subparsers(dest="central_command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve until SIGTERM",
        description="Serve until SIGTERM. The first line on stdout is the URL that is listened on.",
    )
    serve.add_argument("--config", required=True, type=Path, metavar="FILE", help="central's TOML configuration")
    serve.add_argument("--migrate", action="store_true", help="bring the database to this version's schema first")
    serve.set_defaults(run=run)
    migrate = commands.add_parser(
        "migrate",
        help="make or upgrade the database",
        description="Make the database, or bring it to this version's schema, in one transaction. Stop central before.",
    )
    migrate.add_argument("--config", required=True, type=Path, metavar="FILE", help="central's TOML configuration")
    migrate.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve or migrate; return the exit status. Raises ``ConfigError`` and ``CannotCreate`` with what to do next."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"central needs {missing[0]}", mend="pip install 'prism-vault-agent[central]'")
    if args.central_command == "serve":
        from prism_vault_agent.central.serve import serve  # noqa: PLC0415 - a second of imports that no other command needs

        return serve(args.config, migrate_first=args.migrate)
    from prism_vault_agent.central.config import load  # noqa: PLC0415
    from prism_vault_agent.central.storage.engines import migrate  # noqa: PLC0415

    config = load(args.config)
    before, after = migrate(config.database, config.database_owner)
    told = "was already at" if before == after else "is now at"
    print(f"{config.database} {told} revision {after}")
    return 0
