"""``prism-vault config``: check it, show it as it is understood, or print its JSON Schema."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prism_vault_agent.cli import show
from prism_vault_agent.cli.agent import add_config
from prism_vault_agent.cli.main import COMMANDS, tell
from prism_vault_agent.config import sources
from prism_vault_agent.config.accounts import Accounts
from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers
    from prism_vault_agent.config.settings import Settings


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("config", help=COMMANDS["config"][1], description=COMMANDS["config"][1])
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="tell everything that is wrong with the configuration, with file and line")
    shown = actions.add_parser("show", help="the configuration with all defaults, as JSON")
    actions.add_parser("schema", help="the JSON Schema of the configuration, for editors")
    add_config(check)
    add_config(shown)


def run(args: argparse.Namespace) -> int:
    """Do what the action says; ``check`` and ``show`` exit with 78 where the configuration is wrong."""
    if args.action == "schema":
        from prism_vault_agent.config.schema import Document  # noqa: PLC0415 - pydantic takes its time

        print(show.dump(Document.model_json_schema()))
        return 0
    settings = _examine(args.config)
    if args.action == "show":
        from prism_vault_agent.config.plain import to_plain  # noqa: PLC0415 - as above

        print(show.dump(to_plain(settings)))
    else:
        print(f"{settings.files[0]}: valid, {len(settings.files)} files, {len(settings.scopes)} scopes")
    return 0


def _examine(path: str | None) -> Settings:
    """Return the settings; tell all that is wrong, the last of it as the error."""
    from prism_vault_agent.config.load import examine  # noqa: PLC0415 - as above

    settings, errors = examine(sources.read(sources.find(path, os.environ)), os.environ, Accounts())
    for error in errors[:-1]:
        tell(error.line())
    if settings is None or errors:
        raise errors[-1] if errors else ConfigError("the configuration is not valid")
    return settings
