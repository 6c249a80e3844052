"""Which installation of an agent this is.

Whoever has a copy of a host's credential is the same host to central, but not the same installation: the identifier is made at
the first start (``name.py``) and kept in the file ``installation`` of the agent's state directory (0600). It is no secret, and
proves nothing.
"""

from __future__ import annotations

import os
import re
from typing import Final

FILE: Final = "installation"
_ID: Final = re.compile("[0-9a-f]{32}")


def known(state: str) -> str:
    """Return the identifier of the installation whose state directory this is; empty where it has none that we may read."""
    try:
        with open(os.path.join(state, FILE), encoding="ascii", errors="replace") as file:
            found = file.read(64).strip()
    except OSError:
        return ""
    return found if _ID.fullmatch(found) else ""
