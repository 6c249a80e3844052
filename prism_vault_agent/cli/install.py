"""``prism-vault install``: put the units that ship in place."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.config.places import places
from prism_vault_agent.errors import Denied, UsageError
from prism_vault_agent.policy.names import shown

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

    from prism_vault_agent.cli.main import Subparsers
    from prism_vault_agent.install.system import System

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
    parser.add_argument(
        "--network", action="store_true", help="the agent has the host's network, instead of a relay for each of its servers"
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
    from prism_vault_agent.install.relays import Relays  # noqa: PLC0415 - as above
    from prism_vault_agent.install.system import System  # noqa: PLC0415 - as above
    from prism_vault_agent.install.units import LAUNCHER, PARTS, check_launcher, network, shipped  # noqa: PLC0415 - as above

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
    files = shipped(parts, check_launcher(launcher, root))
    names = None
    if "agent" in parts:
        files += [network()] if args.network else []
        names = [] if args.network else relays(installer.system)
    changed = installer.install(files, parts)
    if names is not None:
        changed |= Relays(installer.system, print, dry=args.dry_run).settle(names)
    if not changed:
        print("nothing to do")
    if not args.dry_run:
        print(f"next: {following(parts, installer.system, configured=names is not None, changed=changed)}")
    return 0


def relays(system: System) -> list[str] | None:
    """Return the names of the relays that the agent's configuration and its unit take; None where there is none yet.

    Raises ``ConfigError`` where it is wrong.
    """
    from prism_vault_agent.config.load import main  # noqa: PLC0415 - pydantic takes its time
    from prism_vault_agent.install.dropins import environment  # noqa: PLC0415 - --help does not need it
    from prism_vault_agent.install.relays import wanted  # noqa: PLC0415 - as above

    path = system.root + places({}, 0).config
    if not os.path.exists(path):
        return None
    document = main(path, environment(system, "prism-vault-agent.service"))
    return wanted(document.agent.relay, (document.vault.address, document.central.url, *document.central.replicas))


def following(parts: Collection[str], system: System, *, configured: bool, changed: bool) -> str:
    """Return what is to be done next."""
    services = [f"prism-vault-{part}.service" for part in dict.fromkeys(parts)]
    if not configured:
        again = ", then prism-vault install systemd again, which enables the relays to its servers" if "agent" in parts else ""
        return f"the configuration in /etc/prism-vault{again}, then systemctl enable --now {' '.join(services)}"
    running = [name for name in services if changed and system.active(name)]
    starting = [name for name in services if name not in running]
    told = [("restart", running), ("enable --now", starting)]
    return ", ".join(f"systemctl {verb} {' '.join(names)}" for verb, names in told if names)
