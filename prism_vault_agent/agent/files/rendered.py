"""One generation of files that is out there, and how it is written into its record and read from there by the next agent."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prism_vault_agent.agent import reservations
from prism_vault_agent.model import Lease, Render
from prism_vault_agent.policy.decide import Denial, decide
from prism_vault_agent.scope import File

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.agent.outdated import Marks
    from prism_vault_agent.model import Reservation
    from prism_vault_agent.scope import Scope, ScopeName
    from prism_vault_agent.sink.record import Written

Told = dict[str, Any]


@dataclass(slots=True, eq=False)
class Rendered:
    """The visible generation of a scope. ``at`` is when it was switched, seconds since 1970.

    ``stale``: it is to be rendered anew, as soon as that can be; ``outdated``: what of it is not the newest, so that it is where
    its scope says so, but for what was ``rejected`` because all was not well with it. ``error`` is why that failed last,
    ``retry_at`` when it is tried again, on CLOCK_MONOTONIC. ``mounts`` is what the agent that rendered it knew of them.
    """

    render: Render
    number: int
    files: list[Written]
    at: float
    stale: bool = False
    outdated: Marks = dataclasses.field(default_factory=dict)
    rejected: Marks = dataclasses.field(default_factory=dict)
    rejected_why: str = ""
    error: str = ""
    pause: float = 0.0
    retry_at: float = 0.0
    drift: list[str] = dataclasses.field(default_factory=list)
    mounts: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def scope(self) -> Scope:
        """The scope, as it was when it was rendered."""
        return self.render.reservation.grant.scopes[0]

    @property
    def due(self) -> bool:
        """Whether something is newer than it, and than what was rejected."""
        return bool(self.outdated.items() - self.rejected.items())

    def note(self, marks: Marks) -> None:
        """Take note of what is newer; that it was not yet known is reason to try at once, whatever failed before."""
        if marks.items() - self.outdated.items():
            self.outdated |= marks
            self.retry_at = 0.0

    def failed(self, why: str, *, first: float, longest: float) -> None:
        """Note that rendering anew failed: it is tried again later, and ever less often."""
        self.error = why
        self.pause = min(max(first, self.pause * 2), longest)
        self.retry_at = time.monotonic() + self.pause

    def no_longer(self, scopes: Mapping[ScopeName, Scope]) -> str:
        """Return why it may not stay under these scopes; empty where it may, and then it is stale where they differ."""
        grant = self.render.reservation.grant
        if self.scope.name not in scopes or not scopes[self.scope.name].files:
            return "scope_removed"
        decision = decide(scopes, grant.caller, grant.request)
        if isinstance(decision, Denial):
            return "no_longer_allowed"
        if (decision.bindings, decision.scopes[0].files) != (grant.bindings, self.scope.files):
            self.stale, self.retry_at = True, 0.0
        return ""

    def describe(self) -> Told:
        """Return what ``status`` shows."""
        grant = self.render.reservation.grant
        return {
            "id": self.render.reservation.audit_id,
            "scope": self.scope.name,
            "files": [file.path for file in self.files],
            "generation": self.number,
            "rendered_at": int(self.at),
            "age": int(time.time() - self.at),
            "purpose": grant.purpose,
            "uid": grant.caller.uid,
            "stale": self.stale or bool(self.outdated),
            "rolled_back": self.rejected_why,
            "error": self.error,
            "drift": self.drift,
        }


def told(reservation: Reservation, number: int) -> Told:
    """Return what the record of a generation says of its render; the worker adds files, names, leases and mounts."""
    return {
        "number": number,
        "at": time.time(),
        **reservations.plain(reservation),
    }


def recalled(plain: Told, files: list[Written]) -> Rendered:
    """Return the generation that a record describes. Raises ``KeyError``, ``TypeError``, ``ValueError`` for none."""
    reservation = reservations.recall(plain)
    (scope,) = reservation.grant.scopes
    scope = dataclasses.replace(scope, files=tuple(File(**file) for file in plain["files"]))
    reservation = dataclasses.replace(reservation, grant=dataclasses.replace(reservation.grant, scopes=(scope,)))
    render = Render(reservation, tuple(plain["names"]), tuple(Lease(**lease) for lease in plain["leases"]))
    return Rendered(render, int(plain["number"]), files, float(plain["at"]), mounts=dict(plain["mounts"]))
