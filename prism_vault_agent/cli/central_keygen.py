"""`prism-vault central keygen`: a key with which central signs, and the public half of it that agents are given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prism_vault_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers


def add(actions: Subparsers) -> None:
    """Add the action's parser."""
    parser = actions.add_parser(
        "keygen",
        help="make a key that signs the log",
        description="Make a key that signs checkpoints and receipts, in a new file (0600), and print the key that verifies them.",
        epilog="The log's origin is the key's name: keep the name when the key is replaced. Agents get the printed line.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="where the private key goes; it may not exist")
    parser.add_argument("--name", metavar="NAME", help="the key's name, which is the log's origin; without, one is made up")
    parser.add_argument("--show", action="store_true", help="make nothing: print the verifying key of the key in FILE")
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Make or show a key; return the exit status. Raises ``ConfigError``, ``CannotCreate`` and ``UsageError``."""
    from prism_vault_agent.central.signing import default_name, read_key, write_key  # noqa: PLC0415 - pydantic takes its time
    from prism_vault_agent.proof.keys import SigningKey, is_name  # noqa: PLC0415 - as does libsodium

    if args.show:
        if args.name is not None:
            raise UsageError("--show makes no key that --name could name")
        print(read_key(args.file).verifying_key)
        return 0
    if args.name is not None and not is_name(args.name):
        raise UsageError("a key's name has no space and no '+'", mend="for instance audit.example.org/prism-vault")
    key = SigningKey.generate(args.name or default_name())
    write_key(args.file, key)
    print(key.verifying_key)
    return 0
