"""The program to which the kernel pipes every core dump of the host: ours for a while, one test at a time (core(5))."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
LOCK = Path("/tmp/prism-vault-core-pattern.lock")
OURS = "pv-core-"


@contextlib.contextmanager
def core_handler(script: str, words: str = "%P") -> Iterator[Path]:
    """Have ``script``, with ``{directory}`` in it filled in, started as root with ``words`` for each dump; give its directory.

    All of the host's dumps go there, so a test looks for those of its own processes and for no others. What a test that was
    killed has left is not put back, but the kernel's own default.
    """
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = CORE_PATTERN.read_text()
        directory = Path(tempfile.mkdtemp(prefix=OURS, dir="/tmp"))
        (directory / "noted").touch()
        handler = directory / "handler"
        handler.write_text(script.format(directory=directory))
        handler.chmod(0o755)
        CORE_PATTERN.write_text(f"|{handler} {words}")
        try:
            yield directory
        finally:
            CORE_PATTERN.write_text("core" if OURS in before else before)
            shutil.rmtree(directory)
