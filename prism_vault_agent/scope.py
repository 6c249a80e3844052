"""A scope as the configuration says it: nouns, frozen, without I/O and without values."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NewType, get_args

from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from prism_vault_agent.wanted.kinds import Wanted

ScopeName = NewType("ScopeName", str)
Purpose = NewType("Purpose", str)

CallerKind = Literal["service", "agent", "worker", "operator"]
Collision = Literal["error", "scope", "caller"]
Format = Literal["systemd", "sh", "docker", "compose", "dotenv", "portable", "json", "dir", "template"]
NotifyKind = Literal["unit", "pid_file", "container", "command"]
Does = Literal["terminate", "restart", "signal", "notify", "rewrite", "clear", "none"]

# Those that the helper sends, too. None of them dumps core, which would have the values in it.
SIGNALS: Final = ("HUP", "INT", "TERM", "USR1", "USR2")
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
    """A name (None: the secret's own keys are the names) and the secret it gets, or what is ``wanted`` of an engine there."""

    name: str | None
    reference: SecretReference
    wanted: Wanted | None = None

    @property
    def references(self) -> tuple[SecretReference, ...]:
        """All that is read for it: policies, orders and rows mean each of them."""
        return (self.reference, *self.wanted.sources) if self.wanted else (self.reference,)


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
class Reaction:
    """What is done with who holds a value that was replaced or revoked; ``signal`` is a name without its SIG, for ``signal``.

    At a rotation ``terminate``, ``restart`` and ``signal`` are about processes; ``notify`` has files written anew and who is to
    be told of them told, ``rewrite`` has them written anew only, ``none`` leaves everything. At a revocation processes are
    terminated, or get a signal before they are ended, or are left: ``clear``.
    """

    does: Does
    signal: str = ""

    @classmethod
    def parse(cls, text: str) -> Reaction:
        """Return what ``text`` spells, for instance ``restart`` or ``signal:HUP``. Raises ``ValueError``."""
        does, colon, number = text.partition(":")
        if does not in get_args(Does) or (does == "signal") != bool(colon) or (colon and number not in SIGNALS):
            raise ValueError(f"is no reaction; write one of the words, or signal: and one of {', '.join(SIGNALS)}")
        return cls(does, number)  # type: ignore[arg-type]  # it is one of the words, as the line above says

    def __str__(self) -> str:
        """Return the text that :meth:`parse` reads."""
        return f"signal:{self.signal}" if self.does == "signal" else self.does


@dataclass(frozen=True, slots=True)
class KeyReaction:
    """What is done for one variable; None: as the scope says. ``stale_ok`` is in seconds."""

    name: str
    on_rotate: Reaction | None = None
    on_revoke: Reaction | None = None
    stale_ok: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How often, and when, the processes of a scope are restarted, signalled or ended at a rotation; as of a ``Notify``."""

    splay: float = 0.0
    min_interval: float = 10.0
    windows: tuple[str, ...] = ()
    max_per_hour: int = 12


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential of systemd's: the value of one ``variable`` and nothing else, or all values in a ``file``'s format."""

    name: str
    variable: str = ""
    file: File | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How new files are judged ``within`` seconds: by a ``command`` that ends with 0, by ``units`` that stay active."""

    within: float
    command: tuple[str, ...] = ()
    units: tuple[str, ...] = ()


ROTATED: Final = Reaction("notify")
REVOKED: Final = Reaction("terminate")


@dataclass(frozen=True, slots=True)
class Scope:
    """A named set of bindings, with who may have it and why.

    ``grace``, ``poll``, ``ttl`` (of its leases) and ``stale_ok`` are in seconds.
    """

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
    on_rotate: Reaction = ROTATED
    on_revoke: Reaction = REVOKED
    keys: tuple[KeyReaction, ...] = ()
    rotate_limits: Limits = Limits()
    stale_ok: float | None = None
    health: Health | None = None

    @property
    def restartable(self) -> tuple[str, ...]:
        """The services that its callers name: those that may be restarted. The whole systemd of a user is none."""
        units = dict.fromkeys(rule.unit for rule in self.callers if rule.unit is not None)
        return tuple(unit for unit in units if unit.endswith(".service") and not unit.startswith("user@"))

    @property
    def restarts(self) -> tuple[str, ...]:
        """The services that a rotation may restart, by what the scope or a variable of it says."""
        said = (self.on_rotate, *(key.on_rotate for key in self.keys))
        return self.restartable if any(each is not None and each.does == "restart" for each in said) else ()


def stale_bound(scope: Scope, path: str) -> float | None:
    """Return for how many seconds what was read of a path may be used without a word of the provider; None for no bound."""
    own = {key.name: key.stale_ok for key in scope.keys if key.stale_ok is not None}
    meant = [each for each in scope.bindings if any(read.path == path for read in each.references)]
    bounds = [own.get(each.name or "", scope.stale_ok) for each in meant]
    bounds += own.values() if any(each.name is None for each in meant) else []  # which of them it has is not known here
    return min((bound for bound in bounds if bound is not None), default=None)
