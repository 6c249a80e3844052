"""Units of systemd that ask for credentials: who asks for which, how long they have them, and how they are ended."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.agent.front.cgroup import unit_of
from prism_vault_agent.agent.runs.runs import Run
from prism_vault_agent.errors import Denied

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

# What systemd binds before it connects (systemd.exec(5), LoadCredential=), with all names that it takes.
_ADDRESS: Final = re.compile(rb"\0[0-9a-f]{1,16}/unit/([A-Za-z0-9:_.\\@-]{1,255})/([!-.0-9;-~]{1,255})")


def asked(connection: socket.socket) -> tuple[str, str]:
    """Return the unit and the credential that a peer's address names. Raises ``Denied`` for any other address."""
    address = connection.getpeername()
    match = _ADDRESS.fullmatch(address) if isinstance(address, bytes) else None
    if match is None:
        raise Denied("the peer's address is none of systemd's", mend="use LoadCredential= in a unit", reason="not_systemd")
    return match[1].decode(), match[2].decode()


@dataclass(frozen=True, slots=True)
class Holding:
    """One start of a unit, by its invocation id; ``pid`` is the process that becomes its command."""

    unit: str
    invocation: str
    pid: int

    def held(self) -> bool:
        """Tell whether the unit is still active since then: systemd takes credentials away when it no longer is."""
        return _invocation(self.unit) == self.invocation


def holding(unit: str, pid: int) -> Holding:
    """Return the start of a unit that the process ``pid`` of systemd's asks for. Raises ``Denied`` where there is none."""
    invocation = _invocation(unit)
    if not invocation:
        raise Denied(f"systemd is not starting {unit}", mend="use LoadCredential= in a unit", reason="not_systemd")
    with contextlib.suppress(OSError):
        # systemd forks a child of the process that becomes the command, and has that one ask.
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            parent = int(file.read().rpartition(")")[2].split()[1])
        if _unit(parent) == unit:
            return Holding(unit, invocation, parent)
    return Holding(unit, invocation, pid)


@dataclass(slots=True, eq=False)
class UnitRun(Run):
    """A unit that holds a credential, until it is stopped or started anew: every process in it counts."""

    holding: Holding = field(kw_only=True)
    patience: float | None = 5.0
    stays: str = "the unit keeps its credentials as long as it is active; stop it"

    @property
    def pid(self) -> int:
        """The process that became the unit's command."""
        return self.holding.pid

    def describe(self) -> dict[str, Any]:
        """Return what ``status`` shows."""
        return {**Run.describe(self), "unit": self.holding.unit}

    def held(self) -> bool:
        """Tell whether the unit is still active since then."""
        return self.holding.held()

    def descriptors(self) -> Iterator[int]:
        """Iterate over descriptors of all processes of the unit, each good until the next."""
        return _processes(self.holding.unit)


def _processes(unit: str) -> Iterator[int]:
    """Yield a descriptor of each process of a unit; it is closed when the next one is asked for."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or _unit(int(name)) != unit:
            continue
        try:
            descriptor = os.pidfd_open(int(name))
        except ProcessLookupError:
            continue
        try:
            if _unit(int(name)) == unit:  # still: the number was not another process's when it was opened
                yield descriptor
        finally:
            os.close(descriptor)


def _unit(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace", newline="") as file:
            return unit_of(file.read())
    except OSError:
        return None


def _invocation(unit: str) -> str:
    """Return the id of a unit's current start, which systemd keeps in a link for its journal; empty where it is not active."""
    try:
        return os.readlink(f"/run/systemd/units/invocation:{unit}")
    except OSError:
        return ""
