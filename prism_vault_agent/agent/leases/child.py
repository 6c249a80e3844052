"""A child token of one release with the leases that hang on it, as the front knows them: by accessor and ids, and their ends.

Times are seconds of CLOCK_BOOTTIME, which goes on while the host is suspended and which nobody can set. How it is written into
the journal stands here too: without a value, and without a token.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.agent import reservations
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.model import Lease

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prism_vault_agent.audit.event import Fields
    from prism_vault_agent.model import Reservation

# A lease that was renewed lives as long as at first, or its max ttl has cut it short.
WHOLE: Final = 0.9
SHORTEST_WAIT: Final = 0.2
# Of its life: so much earlier than its credential a process is asked to end, but never earlier than its grace.
MARGIN: Final = 0.1


def now() -> float:
    """Return CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str:
    """Return what this boot of the host is called (proc_sys_kernel(5), ``random/boot_id``)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(slots=True, eq=False)
class Child:
    """One child token, whose leases were made after ``since``. ``parent`` is the accessor of the token that it is a child of.

    ``seconds`` is the life that it is given. ``ends`` says of it, of its leases and of a parent that is not ours any more when
    each ends. ``due`` is when it is looked after next, ``replace_at`` when files get another in place of what cannot be renewed.
    ``ending``: it is to be revoked, not before ``revoke_at``; ``error`` is why that has not been possible. ``replaced``: a newer
    generation of files is there, of which its consumers are told before. ``confirmed`` is when the provider last said that it
    lives. ``orphan``: it has no parent, and does not end with a login.
    """

    accessor: str
    parent: str
    reservation: Reservation
    seconds: int
    boot: str
    leases: tuple[Lease, ...] = ()
    ends: dict[str, float] = field(default_factory=dict)
    due: float = math.inf
    replace_at: float = math.inf
    since: float = 0.0
    renewed: int = 0
    confirmed: float = 0.0
    orphan: bool = False
    capped: bool = False
    ending: bool = False
    revoke_at: float = 0.0
    replaced: bool = False
    pause: float = 0.0
    busy: bool = False
    error: str = ""

    def read(self, leases: Iterable[Lease], since: float) -> None:
        """Take note of what was read, whose time has run since ``since``."""
        self.confirmed = since
        self.leases, self.since = tuple(lease for lease in leases if lease.version is None and lease.seconds), since
        self.ends = {self.accessor: since + self.seconds, **{key(lease): since + lease.seconds for lease in self.leases}}
        fixed = [lease.seconds for lease in self.leases if not lease.renewable]
        self.replace_at = since + min(fixed) * _two_thirds() if fixed else math.inf
        self.plan()

    def plan(self) -> None:
        """Look after it before two thirds of the time that is left have passed, and at ``replace_at``."""
        remaining = self.expires - now()
        self.due = min(now() + max(SHORTEST_WAIT, remaining * _two_thirds()), self.replace_at)

    def extended(self, left: Mapping[str, int]) -> None:
        """Take note of how long each lives now; ``capped`` where what ends first does not live as long as at first."""
        at = self.confirmed = now()
        self.ends |= {each: at + seconds for each, seconds in left.items()}
        self.renewed += 1
        self.capped = self.expires - at < WHOLE * self.span and not self.is_fixed(self.first)
        self.plan()

    @property
    def expires(self) -> float:
        """When the first of all that it takes ends."""
        return min(self.ends.values(), default=math.inf)

    @property
    def is_known(self) -> bool:
        """Whether all of its ends are: of one that an earlier agent left they are asked for first."""
        return self.accessor in self.ends

    @property
    def ask_at(self) -> float:
        """When a process that holds it is asked to end: so much earlier that its grace is over by then."""
        return self.expires - min(self.reservation.grant.grace, self.span * MARGIN)

    @property
    def first(self) -> str:
        """What of all that it takes ends first; nothing while no end is known."""
        return min(self.ends, key=self.ends.__getitem__, default="")

    @property
    def span(self) -> int:
        """How many seconds that lives at first, and after each renewal."""
        return self.spans.get(self.first, self.seconds)

    @property
    def spans(self) -> dict[str, int]:
        """How many seconds each lease is asked to live at each renewal."""
        return {key(lease): lease.seconds for lease in self.leases}

    @property
    def renewable(self) -> dict[str, int]:
        """The leases that can be renewed, and for how many seconds."""
        return {lease.lease_id: lease.seconds for lease in self.leases if lease.renewable}

    @property
    def in_use(self) -> bool:
        """Whether somebody holds it, or may still use what was replaced: its consumers are told, and have their grace."""
        return not self.ending or (self.replaced and not self.error and self.revoke_at > now())

    @property
    def lease_ids(self) -> list[str]:
        """The leases that the server knows by an id."""
        return [lease.lease_id for lease in self.leases if lease.lease_id]

    @property
    def final(self) -> bool:
        """Whether nothing can make it live longer: what ends first cannot be renewed, or no longer as a whole."""
        return self.capped or self.is_fixed(self.first)

    def is_fixed(self, name: str) -> bool:
        """Tell whether this is a lease that nobody can renew."""
        return name in self.spans and name not in self.renewable

    def describe(self) -> list[dict[str, Any]]:
        """Return what ``status`` shows of each lease."""
        at, token_ends = now(), self.ends.get(self.accessor, math.inf)
        ends = {lease.path: min(self.ends.get(key(lease), math.inf), token_ends) for lease in self.leases}
        return [
            {
                "path": path,
                "expires_in": None if end == math.inf else int(max(0.0, end - at)),
                "renewed": self.renewed,
                "final": self.final,
            }
            for path, end in ends.items()
        ]

    def record(self) -> Fields:
        """Return what the journal keeps; :func:`recall` reads it."""
        return {
            "event_id": self.accessor,
            "parent": self.parent,
            "orphan": self.orphan,
            "seconds": self.seconds,
            "boot": self.boot,
            "since": self.since,
            "leases": [dataclasses.asdict(lease) for lease in self.leases],
            "ends": self.ends,
            **reservations.plain(self.reservation),
        }


def portions(children: Iterable[Child], most: int) -> Iterator[list[Child]]:
    """Return child tokens in portions that take at most so many requests to be looked at, or are of one."""
    portion: list[Child] = []
    requests = 0
    for child in children:
        takes = 1 + len(child.lease_ids)
        if portion and requests + takes > most:
            yield portion
            portion, requests = [], 0
        portion.append(child)
        requests += takes
    if portion:
        yield portion


def key(lease: Lease) -> str:
    """Return what a lease is called among the ends: its id, or its path where it has none."""
    return lease.lease_id or lease.path


def recall(plain: Mapping[str, Any]) -> Child:
    """Return the child token that the journal of an earlier agent tells of, when it ends by what that one knew.

    It is to be asked about at once: after another start of the host, all of its times are.

    Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else.
    """
    reservation = reservations.recall(plain)
    leases = tuple(Lease(**lease) for lease in plain["leases"])
    found = Child(str(plain["event_id"]), str(plain["parent"]), reservation, int(plain["seconds"]), str(plain["boot"]), leases)
    found.orphan = bool(plain.get("orphan"))
    if found.boot == boot():
        found.since = float(plain["since"])
        fixed = {key(lease): found.since + lease.seconds for lease in leases if not lease.renewable}
        found.ends = {str(name): float(end) for name, end in dict(plain.get("ends", fixed)).items()}
    found.due = 0.0
    return found


def _two_thirds() -> float:
    """Return somewhat less than two thirds, another part each time, so that hosts do not come at one moment."""
    return random.uniform(0.6, 2 / 3)  # noqa: S311 - jitter is no secret


class StillThere(PrismVaultError):
    """The provider has taken the revocation and not carried it out yet, as while a database is down."""

    reason = "lease_not_ended"
