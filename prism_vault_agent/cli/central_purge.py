"""`prism-vault central purge`: drop the bodies of a project's, a run's or old events. Needs the extra ``central``."""

from __future__ import annotations

import asyncio
import os
import pwd
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prism_vault_agent.cli.steps import Steps
from prism_vault_agent.errors import AuditUnavailable, UsageError

if TYPE_CHECKING:
    import argparse

    from prism_vault_agent.cli.main import Subparsers

NOBODY: Final = 2**32 - 1


def add(actions: Subparsers) -> None:
    """Add the action's parser."""
    parser = actions.add_parser(
        "purge",
        help="drop the bodies of events for good",
        description="Drop the bodies of events for good. Rows, leaves and proofs stay; the log says who purged what, and why.",
        epilog="All that is given must be so. Events of open reservations, and those that no checkpoint covers yet, are kept. "
        "Where checkpoints are anchored, the newest is anchored first, and what it does not cover is kept.",
    )
    parser.add_argument("--project", metavar="NAME", help="events of this project")
    parser.add_argument("--run-ref", metavar="REF", help="events of this run of an AI agent; the log keeps a hash of its name")
    parser.add_argument("--before", metavar="TIME", help="events that came before an ISO 8601 time")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why, for the log; at most 500 characters")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="central's TOML configuration")
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Purge; return the exit status. Raises ``UsageError``, ``ConfigError``, and ``AuditUnavailable`` where it did not end."""
    from prism_vault_agent.central.anchoring import anchor_newest  # noqa: PLC0415 - as below
    from prism_vault_agent.central.anchors import places  # noqa: PLC0415 - as below
    from prism_vault_agent.central.config import load  # noqa: PLC0415 - a second of imports that no other command needs
    from prism_vault_agent.central.log.proofs import Proofs  # noqa: PLC0415 - as above
    from prism_vault_agent.central.log.purge import Selection, purge  # noqa: PLC0415 - as above
    from prism_vault_agent.central.log.store import StorageError, Store  # noqa: PLC0415 - as above
    from prism_vault_agent.central.storage.engines import prepare, reading_engine, require_current, writing_engine  # noqa: PLC0415

    selection = Selection(args.project, args.run_ref, _milliseconds(args.before))
    if selection == Selection():
        raise UsageError("what shall be purged?", mend="give --project, --run-ref or --before")
    if not 0 < len(args.reason) <= 500:
        raise UsageError("--reason has 1 to 500 characters")
    config = load(args.config)
    prepare(config.database)
    readers, store = reading_engine(config.database), Store(writing_engine(config.database))
    why = {"reason": "purged", "message": args.reason, "by": _who()}
    count = still_open = wait = 0
    try:
        require_current(readers, args.config)
        # What goes must be provable from outside of the database too, and who serves may not have anchored it yet.
        anchor = config.log.anchor
        anchored = None if anchor is None else asyncio.run(anchor_newest(Proofs(readers, 0.0), places(anchor)))
        with Steps() as say:
            for dropped in purge(store, readers, selection, why, anchored):
                count, still_open, wait = count + dropped.count, still_open + dropped.open, wait + dropped.wait
                say(f"{count} bodies dropped")
    except StorageError as error:
        raise AuditUnavailable(f"the log cannot be written ({error}); {count} bodies were dropped", mend="run it again") from None
    finally:
        store.close()
        readers.dispose()
    kept = [f"{still_open} kept: their reservations are open"] if still_open else []
    kept += [f"{wait} kept: no checkpoint covers them yet"] if wait else []
    print("; ".join([f"{count} bodies dropped", *kept]))
    return 0


def _milliseconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)
    except ValueError:
        raise UsageError("--before is not a time", mend="write 2026-01-31T12:00:00Z") from None


def _who() -> str:
    """Return who is at the keyboard, by the kernel's word: the user who logged in, also behind sudo, else the process's."""
    try:
        uid = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        uid = NOBODY
    uid = os.getuid() if uid == NOBODY else uid
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
