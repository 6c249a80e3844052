"""`prism-vault central backup|verify-backup|restore`: copies of the log. Need the extra ``central``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from prism_vault_agent.cli.steps import Steps
from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from prism_vault_agent.cli.main import Subparsers


def add(actions: Subparsers) -> None:
    """Add the actions' parsers."""
    _add(actions, "backup", backup, "copy the log to one file, while central serves", needs_file=False)
    verify = _add(
        actions, "verify-backup", verify_backup, "tell whether a backup is whole; exit status 65 names the first bad index"
    )
    verify.add_argument("--log-key", metavar="KEY", help="verifies its checkpoint (default: the configured key)")
    _add(actions, "restore", restore, "bring a backup back into the configured database, which has to be empty")


def _add(
    actions: Subparsers, name: str, act: Callable[[argparse.Namespace], int], told: str, *, needs_file: bool = True
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=told, description=f"{told[0].upper()}{told[1:]}.")
    parser.add_argument("file", nargs=None if needs_file else "?", type=Path, metavar="FILE", help="the backup")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="central's TOML configuration")
    parser.set_defaults(act=act)
    return parser


def backup(args: argparse.Namespace) -> int:
    """Take a backup; return the exit status. Raises ``CannotCreate`` where it cannot be written."""
    from prism_vault_agent.central.backup import take  # noqa: PLC0415 - a second of imports that no other command needs
    from prism_vault_agent.central.config import load  # noqa: PLC0415 - as above

    config = load(args.config)
    target = args.file or Path(f"prism-vault-audit-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.db")
    with Steps() as say:
        rows = take(config.database, target, say)
    print(f"{target}: {rows['event']} events, {rows.get('leaf', 0)} of them with a leaf")
    return 0


def verify_backup(args: argparse.Namespace) -> int:
    """Check a backup; return the exit status. Raises ``IntegrityError`` naming the first bad index."""
    from prism_vault_agent.central.check import check  # noqa: PLC0415 - as above
    from prism_vault_agent.central.config import load  # noqa: PLC0415 - as above
    from prism_vault_agent.central.upgrade import verifying_key  # noqa: PLC0415 - as above
    from prism_vault_agent.proof.keys import VerifyingKey  # noqa: PLC0415 - as above

    key = VerifyingKey.parse(args.log_key) if args.log_key else verifying_key(load(args.config))
    if not args.file.is_file():
        raise ConfigError(f"there is no backup {args.file}")
    with Steps() as say:
        count = check(str(args.file), key, say)
    signed = f"signed by {key.name}" if key else "not signed yet"
    print(f"{args.file}: {count} events; every chain is whole, and so is the tree, which is {signed}")
    return 0


def restore(args: argparse.Namespace) -> int:
    """Restore a backup; return the exit status. Raises ``ConfigError`` where the database is not empty."""
    from prism_vault_agent.central import restore as restoring  # noqa: PLC0415 - as above
    from prism_vault_agent.central.config import load  # noqa: PLC0415 - as above

    config = load(args.config)
    with Steps() as say:
        restoring.restore(args.file, config.database, config.database_owner, say)
    print(f"{config.database} holds what {args.file} held; migrate it, then serve")
    return 0
