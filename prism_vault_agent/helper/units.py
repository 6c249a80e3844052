"""Units of systemd that are told of a rotation: each in a process of its own, since a restart may take its time.

systemd does this for root. So the helper needs ``prism-vault-helper.service.d/units.conf``, or systemd says no.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import Denied
from prism_vault_agent.helper.bounds import VERBS

if TYPE_CHECKING:
    from collections.abc import Callable

MOST: Final = 4
SECONDS: Final = 300.0
LONGEST: Final = 300
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}


class Apart:
    """The processes in which units are told, ``MOST`` at a time."""

    def __init__(self) -> None:
        self._running: set[int] = set()

    def busy(self) -> bool:
        """Tell whether any is still at it."""
        self._running = {pid for pid in self._running if os.waitpid(pid, os.WNOHANG)[0] == 0}
        return bool(self._running)

    def start(self, work: Callable[[], None]) -> None:
        """Have a process of its own do ``work``, and end. Raises ``Denied`` where there are too many."""
        if self.busy() and len(self._running) >= MOST:
            raise Denied(f"{MOST} units are being told already", mend="it is tried again")
        if (pid := os.fork()) != 0:
            self._running.add(pid)
            return
        try:
            work()
        finally:
            os._exit(0)


def act(unit: str, how: str) -> str:
    """Have a unit that runs reload or restart, and wait for it; return what systemctl(1) said where it failed, else nothing."""
    command = ["systemctl", "--no-ask-password", VERBS[how], "--", unit]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_ENVIRONMENT,
            check=False,
            timeout=SECONDS,
        )
    except FileNotFoundError:
        return "there is no systemctl here"
    except subprocess.TimeoutExpired:
        return f"it took longer than {SECONDS:g} s"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
    said = lines[0] if lines else f"systemctl ended with {done.returncode}"
    return "".join(each if each.isprintable() else "?" for each in said)[:LONGEST]
