"""How far dev is, in lines on standard error: standard output belongs to the command."""

from __future__ import annotations

import contextlib
import sys


def tell(*lines: str) -> None:
    """Print lines of ours on standard error, where there is one."""
    for line in lines:
        with contextlib.suppress(OSError):
            print(f"prism-vault dev: {line}", file=sys.stderr, flush=True)
