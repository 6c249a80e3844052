"""Tells by a command of the operator's. It gets no value, neither in its arguments nor in its environment.

What it prints is discarded and never read: it may read the files, so what it prints may be a value, and no long-lived process of
ours holds one. Its exit status is what counts.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from prism_vault_agent.config import way
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.notify.child import run
from prism_vault_agent.notify.occasion import not_told

if TYPE_CHECKING:
    from prism_vault_agent.notify.occasion import Occasion
    from prism_vault_agent.scope import Notify


async def tell(notify: Notify, occasion: Occasion) -> str:
    """Run it to its end; there is always somebody to tell. Raises ``Unavailable`` where it cannot be run, or fails."""
    program = notify.target[0]
    _trusted(program)
    told = {
        "PRISM_VAULT_SCOPE": occasion.scope,
        "PRISM_VAULT_GENERATION": str(occasion.generation),
        "PRISM_VAULT_DIRECTORY": occasion.directory,
    }
    try:
        status, _ = await run(notify.target, told, answer=False)
    except OSError as error:
        raise not_told(f"{program} cannot be run: {os.strerror(error.errno or 0)}", "correct it") from None
    if status != 0:
        how = f"ended with {status}" if status > 0 else f"was ended by signal {-status}"
        raise not_told(f"{program} {how}", "run it by hand, what it prints here is discarded")
    return ""


def _trusted(program: str) -> None:
    """Raise where somebody other than root and us could put another program in its place."""
    try:
        way.check(program, set())
        found = os.stat(program)
        if stat.S_ISREG(found.st_mode):
            way.owned(program, found)
            way.unwritable(program, found)
    except ConfigError as error:
        raise not_told(error.message, error.mend) from None
    except OSError as error:
        raise not_told(f"{program} cannot be run: {os.strerror(error.errno or 0)}", "correct it") from None
