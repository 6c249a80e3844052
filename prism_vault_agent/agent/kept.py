"""A small text that the next agent is to find, in a file of the state directory."""

from __future__ import annotations

import contextlib
import os

from prism_vault_agent.audit.journal import private


def keep(path: str, text: str) -> None:
    """Put ``text`` in place of what the file at ``path`` has, whole or not at all. Raises ``OSError`` and changes nothing."""
    draft = f"{path}.new"
    try:
        with open(draft, "w", encoding="utf-8", opener=private) as file:
            file.write(text)
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
