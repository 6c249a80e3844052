"""``prism-vault audit verify``: of central's log, a database, or an export; against what others hold of it."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from prism_vault_agent.central.verification.databases import open_database
from prism_vault_agent.central.verification.export import Export
from prism_vault_agent.central.verification.processes import Processes
from prism_vault_agent.central.verification.verify import Log, Verdict
from prism_vault_agent.central.verification.verify import verify as verify_log
from prism_vault_agent.cli.audit_held import held
from prism_vault_agent.cli.audit_proof import keys_of, signers
from prism_vault_agent.cli.progress import Progress
from prism_vault_agent.errors import IntegrityError, UsageError
from prism_vault_agent.proof.keys import VerifyingKey

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

COUNTED: Final = ("rows", "chains", "leaves", "checkpoints", "dropped")
_MEND: Final = "keep everything as it is, and compare it with a backup and with what the agents hold"


def verify(args: argparse.Namespace) -> int:
    """Verify, and say what was verified. Raises ``IntegrityError`` that names the first bad index."""
    with contextlib.ExitStack() as stack:
        processes = Processes()
        stack.callback(processes.close)
        keys = [VerifyingKey.parse(text) for text in args.log_key]
        log: Log
        if args.database:
            log = stack.enter_context(open_database(args.database))
        elif args.export:
            log = Export(stack.enter_context(_lines(args.export)))
        else:
            from prism_vault_agent.cli.central_client import CentralClient  # noqa: PLC0415 - only where central is asked
            from prism_vault_agent.cli.central_log import CentralLog  # noqa: PLC0415

            central = CentralClient(args)
            log = CentralLog(central)
            keys, _ = keys_of(central, args.log_key)
        elsewhere = held(args.note, args.head, args.receipt, keys)
        progress = Progress("rows", log.expected())
        gc.disable()  # many small things live long, none in a cycle
        verdict = verify_log(log, keys=keys, elsewhere=elsewhere, spread=processes.spread, progress=progress)
        progress.end()
    _tell(verdict, keys, pinned=bool(args.log_key), as_json=args.json)
    if verdict.fault is not None:
        raise IntegrityError(f"the log is not whole: first bad index {verdict.fault.n}: {verdict.fault.what}", mend=_MEND)
    if verdict.unguarded:
        gone = ", ".join(verdict.unguarded)
        raise IntegrityError(f"every row is whole, but guards of the tables are gone: {gone}", mend="find out who dropped them")
    return 0


def _tell(verdict: Verdict, keys: Sequence[VerifyingKey], *, pinned: bool, as_json: bool) -> None:
    """Print what was verified, as JSON also what is wrong."""
    fault = verdict.fault
    if as_json:
        counted: dict[str, Any] = {name: getattr(verdict, name) for name in COUNTED}
        signed = {"keys": [str(key) for key in keys], "pinned": pinned, "origins": sorted(verdict.signers)}
        wrong = {
            "unguarded": list(verdict.unguarded),
            "first_bad": fault.n if fault else None,
            "what": fault.what if fault else None,
        }
        print(json.dumps(counted | signed | wrong))
    elif fault is None:
        counts = (_many(verdict.chains, "chain"), _many(verdict.leaves, "leaf"), _many(verdict.checkpoints, "checkpoint"))
        print(f"{_many(verdict.rows, 'event')} in {', '.join(counts)}: the log is whole")
        if verdict.rows > verdict.leaves:
            print(f"{_many(verdict.rows - verdict.leaves, 'event')} without a leaf yet")
        if verdict.dropped:
            print(f"{_many(verdict.dropped, 'event')} whose bodies were dropped, as events of the log say")
        if keys and verdict.checkpoints:
            print(f"every checkpoint is signed by {signers(keys, pinned=pinned)}")
        elif verdict.checkpoints:
            print(f"signatures were not verified: give --log-key with the key of {', '.join(sorted(verdict.signers))}")


def _many(number: int, noun: str) -> str:
    plural = {"leaf": "leaves"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"


@contextlib.contextmanager
def _lines(file: str) -> Iterator[BinaryIO]:
    """Give the lines of a file, or of standard input."""
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as opened:
            yield opened
    except OSError as error:
        raise UsageError(f"the export {file} cannot be read: {error.strerror}") from None
