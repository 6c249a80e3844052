"""``prism-vault agent``: the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.cli.main import COMMANDS

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("agent", help=COMMANDS["agent"][1], description=COMMANDS["agent"][1])
    parser.add_argument(
        "--clear",
        action="store_true",
        help="do not serve, but take back what an agent that has ended left, where its on_end is clear, and exit; for the end of "
        "its unit or container",
    )
    add_config(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Give a command the option that names the configuration."""
    parser.add_argument(
        "--config",
        metavar="PATH",
        help="the configuration (default: PRISM_VAULT_CONFIG, for root /etc/prism-vault/agent.toml, "
        "else agent.toml in $XDG_CONFIG_HOME/prism-vault)",
    )


def run(args: argparse.Namespace) -> int:
    """Be the agent until it is told to stop, or clear what one left."""
    if args.clear:
        from prism_vault_agent.agent.sentinel.after import clear  # noqa: PLC0415 - --help needs nothing of it

        return clear(args.config)
    from prism_vault_agent.agent import agent  # noqa: PLC0415 - --help does not need a daemon

    return agent.run(args.config)
