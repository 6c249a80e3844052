"""How often a heavy loop runs: a small count in ``make test``, the full one in ``make soak``."""

from __future__ import annotations

import os


def count(small: int, full: int) -> int:
    """Return ``full`` where PRISM_VAULT_SOAK=1 is set, else ``small``."""
    return full if os.environ.get("PRISM_VAULT_SOAK") == "1" else small
