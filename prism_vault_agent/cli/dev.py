"""``prism-vault dev``: everything on one machine, for trying it out. Needs the extra ``dev-stack``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.cli.main import COMMANDS

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

DESCRIPTION = """\
Start OpenBao (in memory), central (on SQLite) and an agent, unprivileged and on free ports, and stop all of them at the end.
With CMD: run it under `prism-vault exec --scope dev` and exit with its status. Without: serve until Ctrl-C.
"""


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("dev", help=COMMANDS["dev"][1], description=DESCRIPTION)
    parser.add_argument(
        "--state",
        metavar="DIR",
        help="directory of the stack, kept at the end: its logs, its audit log and your scopes.d "
        "(default: a fresh one that is removed at the end)",
    )
    parser.add_argument(
        "--env-file",
        metavar="FILE",
        help="seed of the secret secret/dev and of the bindings of scope dev, read once at the start "
        "(default: one made-up value, DEMO_SECRET)",
    )
    parser.add_argument("words", nargs="*", metavar="CMD", help="the command and its arguments, behind --")


def run(args: argparse.Namespace) -> int:
    """Run the stack, and the command in it; return the exit status."""
    from prism_vault_agent.dev import stack  # noqa: PLC0415 - --help does not need hvac

    return stack.run(args.state, args.env_file, args.words)
