"""``prism-vault witness``: what this host holds of central's log, and the way on after it was refused.

``show`` exits with 65 where the log was refused. ``accept`` sets aside what is held, and the evidence: the agent begins anew with
whatever central shows then. Both read and write the agent's own files, so they are for its user; they ask nobody.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from prism_vault_agent.cli import show
from prism_vault_agent.cli.agent import add_config
from prism_vault_agent.cli.main import COMMANDS
from prism_vault_agent.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.audit.held import WitnessFiles
    from prism_vault_agent.cli.main import Subparsers


def add(commands: Subparsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("witness", help=COMMANDS["witness"][1], description=COMMANDS["witness"][1])
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shown = actions.add_parser(
        "show", help="the checkpoint that is held, and what was found against the log; 65 where something was"
    )
    shown.add_argument("--json", action="store_true", help="the same as JSON")
    accept = actions.add_parser(
        "accept", help="set aside the checkpoint and the evidence, and begin anew with what central shows"
    )
    add_config(shown)
    add_config(accept)


def run(args: argparse.Namespace) -> int:
    """Show what is held, or set it aside. Raises ``IntegrityError`` where the log was refused and that is only shown."""
    files, origin = _files(args.config)
    if args.action == "accept":
        aside = files.forget()
        print("".join(f"set aside: {path}\n" for path in aside) or "nothing was held\n", end="")
        return 0
    found = files.accused()
    held = {} if found else files.load().plain()
    size = int(held["note"].split("\n")[1]) if held.get("note") else 0
    told = {"origin": origin, "size": size, "kept_at": held.get("kept_at") or None, "checkpoint": files.checkpoint}
    if args.json:
        print(show.dump({**told, "found": found, "evidence": files.evidence if found else ""}))
    elif not found:
        kept = f"kept {show.age(time.time() - held['kept_at'] / 1000)} ago" if size else "none yet"
        print(f"log         {show.text(origin)}\ncheckpoint  {size} rows, {kept}, in {files.checkpoint}")
    if found:
        raise IntegrityError(f"{found}; evidence in {files.evidence}", mend="settle it, then: prism-vault witness accept")
    return 0


def _files(config: str | None) -> tuple[WitnessFiles, str]:
    """Return the agent's files and the name of the log. Raises ``ConfigError`` where no key is configured."""
    from prism_vault_agent.audit.held import WitnessFiles  # noqa: PLC0415 - the signature's library takes its time
    from prism_vault_agent.config.load import load  # noqa: PLC0415 - so does pydantic
    from prism_vault_agent.proof.keys import VerifyingKey  # noqa: PLC0415 - as above

    settings = load(config, os.environ)
    if not settings.central.log_keys:
        raise ConfigError("this host is no witness: [central] log_key is not set", mend="set it to the key of central's operator")
    origin = VerifyingKey.parse(settings.central.log_keys[0]).name
    return WitnessFiles(settings.agent.state, origin), origin
