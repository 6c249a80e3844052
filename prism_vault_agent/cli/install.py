"""``prism-vault install``: put the units that ship in place."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.errors import Denied, UsageError
from prism_vault_agent.policy.names import shown

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

SYSTEMD: Final = "put the units, their users and directories in place, each thing told in one line; a file that you changed stays"


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    from prism_vault_agent.cli.parser import Parser  # noqa: PLC0415 - only this command needs it here
    from prism_vault_agent.install.units import LAUNCHER  # noqa: PLC0415 - as above

    whole = commands.add_parser("install", help=COMMANDS["install"][1], description=COMMANDS["install"][1])
    below = whole.add_subparsers(dest="what", metavar="WHAT", required=True, parser_class=Parser)
    parser = below.add_parser("systemd", help=SYSTEMD, description=SYSTEMD)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="agent, central, or both (default: agent; with --undo all that there is)"
    )
    parser.add_argument("--undo", action="store_true", help="take away what was installed, and nothing that was changed since")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done")
    parser.add_argument("--root", metavar="DIR", default="", help="an image's directory, instead of this system")
    parser.add_argument(
        "--launcher", metavar="PATH", help=f"the command that the units start (default: this one; with --root {LAUNCHER})"
    )


def run(args: argparse.Namespace) -> int:
    """Install, or undo it."""
    from prism_vault_agent.install.apply import Installer  # noqa: PLC0415 - --help does not need it
    from prism_vault_agent.install.system import System  # noqa: PLC0415 - as above
    from prism_vault_agent.install.units import LAUNCHER, PARTS, check_launcher, shipped  # noqa: PLC0415 - as above

    if unknown := [part for part in args.parts if part not in PARTS]:
        raise UsageError(f"there is no part {shown(unknown[0])}", mend=f"name {' or '.join(PARTS)}")
    if os.geteuid() != 0 and not args.dry_run:
        raise Denied("only root can install units", mend="run it as root, or with --dry-run", reason="not_root")
    root = os.path.abspath(args.root).rstrip("/") if args.root else ""
    installer = Installer(System(root), print, dry=args.dry_run)
    if args.undo:
        installer.undo(args.parts or PARTS)
        return 0
    launcher = args.launcher or (LAUNCHER if root else os.path.realpath(sys.argv[0]))
    parts = args.parts or ["agent"]
    installer.install(shipped(parts, check_launcher(launcher, root)))
    if not args.dry_run:
        services = " ".join(f"prism-vault-{part}.service" for part in dict.fromkeys(parts))
        print(f"next: the configuration in /etc/prism-vault, then systemctl enable --now {services}")
    return 0
