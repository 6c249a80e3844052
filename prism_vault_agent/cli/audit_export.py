"""``prism-vault audit export``: the whole log as JSON lines, up to the newest checkpoint, which is the last line."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from prism_vault_agent.central.verification.export import closing_line, row_line
from prism_vault_agent.cli.central_client import CentralClient
from prism_vault_agent.cli.central_log import CentralLog
from prism_vault_agent.cli.progress import Progress
from prism_vault_agent.errors import CannotCreate

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def export(args: argparse.Namespace) -> int:
    """Write the log to the file, which is there whole or not at all, or to standard output."""
    log = CentralLog(CentralClient(args))
    with _target(args.file) as out:
        progress = Progress("rows", log.expected())
        done = 0
        for rows in log.parts():
            out.writelines(map(row_line, rows))
            done += len(rows)
            progress(done)
        progress.end()
        out.write(closing_line(log.size, log.note))
    return 0


@contextlib.contextmanager
def _target(path: Path | None) -> Iterator[IO[bytes]]:
    """Give a file to write to: standard output, or one that takes its place when all is written durably."""
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:  # mode 0600
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
    except OSError as error:
        raise CannotCreate(f"the export {path} cannot be written: {error.strerror}") from None
