"""Which process was given what, in a file that the next agent reads: written before the values are given, gone with the run.

It holds names, paths and numbers, never a value.
"""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from prism_vault_agent.agent import reservations
from prism_vault_agent.agent.front.peer import SHORTAGE
from prism_vault_agent.agent.kept import Kept
from prism_vault_agent.agent.leases.child import boot
from prism_vault_agent.errors import CannotCreate, Unavailable
from prism_vault_agent.model import Lease, Render
from prism_vault_agent.vault.mounts import mount_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prism_vault_agent.agent.trees.guards import Guard
    from prism_vault_agent.model import Resolution

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Recalled:
    """What an earlier agent gave, ``unit`` being the start of the unit that it gave it to (unit, invocation, process).

    ``tree`` is by what the processes of a run are found (``trees.tree.kept``), ``guards`` who is above one that is supervised.
    ``at`` is when, seconds since 1970; ``here`` tells whether that was since the host's start. ``mounts`` is what that agent
    knew of the mounts that it read.
    """

    render: Render
    at: float
    mounts: dict[str, int]
    unit: tuple[str, str, int] | None
    tree: list[Any] | None
    guards: tuple[Guard, ...]
    here: bool


@dataclass(slots=True)
class RunRecords:
    """The records in the file ``path``. ``mounts`` is what is known of the mounts that is read from. Nothing here waits."""

    path: str
    mounts: dict[str, int]
    _kept: Kept = field(init=False)
    _boot: str = field(default_factory=boot)

    def __post_init__(self) -> None:
        """Nothing is read yet."""
        self._kept = Kept(self.path)

    def keep(
        self,
        resolution: Resolution,
        unit: tuple[str, str, int] | None = None,
        *,
        tree: list[Any] | None = None,
        guards: tuple[Guard, ...] = (),
    ) -> None:
        """Keep what is about to be given, until it is dropped: when its end can no longer be lost.

        Raises ``CannotCreate`` where the disk does not take it, ``Unavailable`` without a descriptor; nothing is given then.
        """
        reservation = resolution.reservation
        known = {mount_of(lease.path, self.mounts) for lease in resolution.leases}
        fields = {
            "event_id": reservation.id,
            "at": time.time(),
            "boot": self._boot,
            "names": resolution.names,
            "leases": [dataclasses.asdict(lease) for lease in resolution.leases],
            "mounts": {mount: self.mounts[mount] for mount in known if mount is not None},
            "unit": unit,
            "tree": tree,
            "guards": guards,
            **reservations.plain(reservation),
        }
        try:
            self._kept.keep(fields)
        except OSError as error:
            if error.errno in SHORTAGE:
                raise Unavailable("the agent is out of descriptors or memory", mend="retry", reason="busy") from None
            told = f"cannot keep what is given to whom in {self.path}: {os.strerror(error.errno or 0)}"
            raise CannotCreate(told, mend="make room or mend its directory") from None

    def drop(self, reservation: str) -> None:
        """Forget what is no longer out there; where the disk does not take that, the next agent finds it out."""
        self._kept.drop(reservation)

    def load(self) -> Iterator[Recalled]:
        """Return what an earlier agent gave and did not see the end of; each is kept until it is dropped."""
        for fields in self._kept.load():
            try:
                yield _recalled(fields)
            except (KeyError, TypeError, ValueError) as error:
                log.error("runs.damaged", error=type(error).__name__)
                self._kept.drop(str(fields["event_id"]))


def _recalled(fields: Mapping[str, Any]) -> Recalled:
    leases = tuple(Lease(**lease) for lease in fields["leases"])
    unit = None if fields["unit"] is None else (str(fields["unit"][0]), str(fields["unit"][1]), int(fields["unit"][2]))
    guards = tuple((int(pid), int(started)) for pid, started in fields.get("guards", ()))
    render = Render(reservations.recall(fields), tuple(fields["names"]), leases)
    return Recalled(
        render, float(fields["at"]), dict(fields["mounts"]), unit, fields.get("tree"), guards, fields["boot"] == boot()
    )
