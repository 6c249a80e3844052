"""Units of systemd that ask for credentials: who asks for which, and the runs that they are from then on."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.agent.runs.run import Run
from prism_vault_agent.agent.trees.unit import Holding, invocation, unit
from prism_vault_agent.errors import Denied
from prism_vault_agent.notify.unit import stop as stop_unit

if TYPE_CHECKING:
    import socket

# What systemd binds before it connects (systemd.exec(5), LoadCredential=), with all names that it takes.
_ADDRESS: Final = re.compile(rb"\0[0-9a-f]{1,16}/unit/([A-Za-z0-9:_.\\@-]{1,255})/([!-.0-9;-~]{1,255})")


def asked(connection: socket.socket) -> tuple[str, str]:
    """Return the unit and the credential that a peer's address names. Raises ``Denied`` for any other address."""
    address = connection.getpeername()
    match = _ADDRESS.fullmatch(address) if isinstance(address, bytes) else None
    if match is None:
        raise Denied("the peer's address is none of systemd's", mend="use LoadCredential= in a unit", reason="not_systemd")
    return match[1].decode(), match[2].decode()


def holding(name: str, pid: int) -> Holding:
    """Return the start of a unit that the process ``pid`` of systemd's asks for. Raises ``Denied`` where there is none."""
    current = invocation(name)
    if not current:
        raise Denied(f"systemd is not starting {name}", mend="use LoadCredential= in a unit", reason="not_systemd")
    with contextlib.suppress(OSError):
        # systemd forks a child of the process that becomes the command, and has that one ask.
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            parent = int(file.read().rpartition(")")[2].split()[1])
        if unit(parent) == name:
            return Holding(name, current, parent)
    return Holding(name, current, pid)


@dataclass(slots=True, eq=False)
class UnitRun(Run):
    """A unit that holds a credential, until it is stopped or started anew: every process in it counts."""

    tree: Holding
    patience: float | None = 5.0
    stays: str = "the unit keeps its credentials as long as it is active; stop it"

    async def stop(self, helper: str) -> str:
        """Have systemd stop the unit, which may be active without a process (``RemainAfterExit=``)."""
        why = await stop_unit(self.tree.unit, helper)
        return f"{self.stays} ({why})" if why else ""

    @property
    def pid(self) -> int:
        """The process that became the unit's command."""
        return self.tree.pid

    def describe(self) -> dict[str, Any]:
        """Return what ``status`` shows."""
        return {**Run.describe(self), "unit": self.tree.unit}
