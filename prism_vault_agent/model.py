"""The nouns: frozen, without I/O, and without values. A secret value has no type here, because only a worker holds one.

The chain is the architecture: each step of a render takes the proof of the step before (see ``render.py``).

::

    decide(...)            -> Grant          policy said yes
    AuditLog.reserve(...)  -> Reservation    the intent is durably on the central log
    Provider.resolve(...)  -> Resolution     values are in flight, inside one worker; here are only their descriptions
    AuditLog.succeed(...)  -> Receipt        the success row is durably on the central log
    Sink.deliver(...)      -> Render         what is out there now
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NewType

if TYPE_CHECKING:
    from prism_vault_agent.scope import Binding, CallerKind, Purpose, Reaction, Scope, ScopeName

ReservationId = NewType("ReservationId", str)
Mode = Literal["exec", "direct", "file", "credential"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the kernel says; never as the caller says.

    ``started`` is field 22 of ``/proc/PID/stat`` (clock ticks since boot, see proc_pid_stat(5)). ``guarantee`` is
    ``pidfd`` where the kernel handed us the peer's own process descriptor, else ``start-time``, which is weaker.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]
    executable: str
    started: int
    unit: str | None = None
    container: str | None = None
    guarantee: Literal["pidfd", "start-time"] = "pidfd"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked. ``references`` are the ``vault://`` values of the caller's own variables and env files.

    ``supervised``: the caller has a supervisor of ours, which can start it anew. ``on_rotate`` goes before what its scopes say.
    """

    scopes: tuple[ScopeName, ...]
    purpose: Purpose | None = None
    run_ref: str | None = None
    job_id: str | None = None
    references: tuple[Binding, ...] = ()
    mode: Mode = "exec"
    supervised: bool = False
    on_rotate: Reaction | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """Proof that policy said yes: these bindings, for this caller, of this kind, for this purpose.

    ``scopes`` all have one project and one environment. ``bindings`` are those of every scope, then the caller's own.
    """

    scopes: tuple[Scope, ...]
    caller: Caller
    kind: CallerKind
    purpose: Purpose
    request: Request
    bindings: tuple[Binding, ...]
    pristine: bool

    @property
    def grace(self) -> float:
        """Seconds between asking a process to end and ending it: the shortest that one of the scopes gives."""
        return min(scope.grace for scope in self.scopes)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Proof that the intent is durably on the central log. ``audit_id`` is what people quote (``pva_...``)."""

    id: ReservationId
    audit_id: str
    grant: Grant


@dataclass(frozen=True, slots=True)
class Lease:
    """What the provider expects back, or the version that was read: never a value.

    ``seconds`` is 0 where it never ends, ``renewable`` whether it can end later; ``created`` is of a version (RFC 3339, UTC).
    """

    path: str
    version: int | None = None
    lease_id: str = ""
    seconds: int = 0
    created: str = ""
    renewable: bool = False


@dataclass(frozen=True, slots=True)
class Resolution:
    """Values in flight for one reservation, described: their names and leases. The values stay where ``held`` points."""

    reservation: Reservation
    names: tuple[str, ...]
    leases: tuple[Lease, ...]
    held: object


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that the success row of a resolution is durably on the central log, at index ``n``."""

    resolution: Resolution
    n: int


@dataclass(frozen=True, slots=True)
class Render:
    """What is out there now: which names, from which leases, in whose hands. No values."""

    reservation: Reservation
    names: tuple[str, ...]
    leases: tuple[Lease, ...]
