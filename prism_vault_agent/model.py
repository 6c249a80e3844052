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

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NewType

from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from prism_vault_agent.certificate import Certificate

ScopeName = NewType("ScopeName", str)
Purpose = NewType("Purpose", str)
ReservationId = NewType("ReservationId", str)

CallerKind = Literal["service", "agent", "worker", "operator"]
Collision = Literal["error", "scope", "caller"]
Mode = Literal["exec", "direct", "file", "credential"]
Format = Literal["systemd", "sh", "docker", "compose", "dotenv", "portable", "json", "dir", "template"]

NotifyKind = Literal["unit", "pid_file", "container", "command"]

_REFERENCE: Final = re.compile(r"vault://(?P<path>[^#?\s]+)(?:#(?P<key>[^?\s]+))?(?:\?version=(?P<version>[1-9][0-9]*))?")


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where one value lives: ``vault://<mount>/<path>#<key>[?version=N]``; without ``#key``, every key of the path."""

    path: str
    key: str | None = None
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> SecretReference:
        """Return the reference that ``text`` spells, or raise :class:`ConfigError` that shows what is expected."""
        match = _REFERENCE.fullmatch(text) if text.isprintable() else None
        parts = match["path"].split("/") if match else []
        if match is None or len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
            raise ConfigError("not a secret reference", mend="write vault://<mount>/<path>#<key>, or with ?version=N behind it")
        return cls(match["path"], match["key"], int(match["version"]) if match["version"] else None)

    def __str__(self) -> str:
        """Return the text that :meth:`parse` reads."""
        key = f"#{self.key}" if self.key is not None else ""
        return f"vault://{self.path}{key}" + (f"?version={self.version}" if self.version else "")


@dataclass(frozen=True, slots=True)
class Binding:
    """A name (None: the secret's own keys are the names) and the secret it gets, or the ``certificate`` that is issued there."""

    name: str | None
    reference: SecretReference
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class CallerRule:
    """Who may ask: every selector that is set must match. ``uid`` and ``gid`` are numbers, resolved when read."""

    kind: CallerKind
    uid: int | None = None
    gid: int | None = None
    executable: str | None = None
    unit: str | None = None
    container: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file that a scope is rendered to: ``path`` below the scope's own directory (for ``dir`` a directory), in a format.

    For ``template`` also the path of the template, its text, and the SHA-256 (hex) of that, by which a changed one is known.
    """

    path: str
    format: Format
    uid: int
    gid: int
    mode: int
    template: str = ""
    digest: str = ""
    text: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Notify:
    """Who is told that ``files`` of a scope (their paths) changed, how, and how often at most. Durations are seconds.

    ``target`` is the name of a unit or container, the path of a pid file, or the words of a command; ``how`` an action
    (``reload``, ``restart``, ``reload-or-restart``) or a signal without its SIG; empty for a command.
    """

    kind: NotifyKind
    target: tuple[str, ...]
    how: str
    files: tuple[str, ...]
    engine_socket: str = ""
    splay: float = 0.0
    min_interval: float = 10.0
    windows: tuple[str, ...] = ()
    max_per_hour: int = 12
    timeout: float = 60.0

    def __str__(self) -> str:
        """Return whom it tells, in one line, the same as long as that is the same."""
        return " ".join(part for part in (self.kind.replace("_", " "), *self.target, f"({self.how})" if self.how else "") if part)


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential of systemd's: the value of one ``variable`` and nothing else, or all values in a ``file``'s format."""

    name: str
    variable: str = ""
    file: File | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """A named set of bindings, with who may have it and why. ``grace``, ``poll`` and ``ttl`` (of its leases) are in seconds."""

    name: ScopeName
    project: str
    environment: str
    purposes: tuple[Purpose, ...]
    callers: tuple[CallerRule, ...]
    bindings: tuple[Binding, ...] = ()
    allow_paths: tuple[str, ...] = ()
    allow_names: frozenset[str] = frozenset()
    collision: Collision = "error"
    pristine: bool | None = None
    grace: float = 10.0
    ttl: float = 0.0
    poll: float | None = None
    files: tuple[File, ...] = ()
    notify: tuple[Notify, ...] = ()
    credentials: tuple[Credential, ...] = ()


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
    """What was asked. ``references`` are the ``vault://`` values of the caller's own variables and env files."""

    scopes: tuple[ScopeName, ...]
    purpose: Purpose | None = None
    run_ref: str | None = None
    job_id: str | None = None
    references: tuple[Binding, ...] = ()
    mode: Mode = "exec"


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
