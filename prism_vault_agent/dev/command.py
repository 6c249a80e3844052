"""The command that dev runs under ``prism-vault exec``: it has the terminal, and dev stays out of its way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final

from prism_vault_agent.dev.process import ours, tied
from prism_vault_agent.dev.progress import tell
from prism_vault_agent.dev.signals import from_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prism_vault_agent.dev.place import Place
    from prism_vault_agent.dev.process import Part
    from prism_vault_agent.dev.signals import Signals

GRACE: Final = 10.0


def attend(command: Sequence[str], place: Place, signals: Signals, dead: Callable[[], Part | None]) -> int:
    """Run the command until its end and return its status, 128+n where signal n ended it.

    A signal that the terminal sends reaches the command by itself; others are passed on, and a command that is not gone
    ``GRACE`` seconds after SIGTERM or SIGHUP is killed.
    """
    signals.check()
    child = subprocess.Popen(
        ours("exec", "--scope", "dev", "--socket", str(place.socket), "--", *command),
        # Without what would change what is asked for, such as PRISM_VAULT_PURPOSE.
        env={name: value for name, value in os.environ.items() if not name.startswith("PRISM_VAULT_")},
        preexec_fn=tied(signals.before),  # noqa: PLW1509 - there are no threads
    )
    seconds: float | None = None
    told = False
    while child.poll() is None:
        found = signals.next(seconds)
        if found is None:
            child.kill()
            continue
        if found.si_signo != signal.SIGCHLD and not from_terminal(found):
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(found.si_signo)
            seconds = GRACE if found.si_signo != signal.SIGINT else seconds
        elif not told and (part := dead()) is not None:
            tell(f"{part.name} ended by itself: {part.last_line()}; the command goes on")
            told = True
    status = child.returncode
    return status if status >= 0 else 128 - status
