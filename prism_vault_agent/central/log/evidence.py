"""What became of a revocation, host by host: from the log alone. Who was told, who answered, what was cleared, what is left.

A release is left where its success is on the log before the revocation, the revocation means it, and no ``cleared`` row says that
it is no longer out there. Whose word that is: the agent's that watches it, or the kernel's, since nothing outlives its boot.
Pure; ``releases.py`` finds the rows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from prism_vault_agent.audit.event import SIGNAL_DONE, audit_id
from prism_vault_agent.central.config import OWN_HOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# What central's own row about a signal says as its ``reason``.
TOLD: Final = "signal_told"
# How many releases of a host are named in each state; all are counted.
NAMED: Final = 20

State = Literal["cleared", "ending", "failed", "unwatched", "silent"]


@dataclass(frozen=True, slots=True)
class Release:
    """A release that a revocation means: by which start of the agent (``epoch``), and when in its host's boot (``boot_ms``)."""

    n: int
    reservation: str
    host: str
    epoch: str
    boot_ms: int
    scopes: Sequence[str] = ()
    run_ref: str | None = None


@dataclass(frozen=True, slots=True)
class About:
    """A row about a signal, in the order of the log."""

    n: int
    host: str
    epoch: str
    kind: str
    received_at: int
    fields: Mapping[str, Any]


@dataclass(slots=True)
class Host:
    """One host's part. Times are milliseconds since 1970, None where there was none."""

    host: str
    state: State = "silent"
    told_at: int | None = None
    received_at: int | None = None
    done_at: int | None = None
    ended: int = 0
    failed: int = 0
    cleared: int = 0
    left: int = 0
    unwatched: int = 0
    releases: list[dict[str, Any]] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return dataclasses.asdict(self)


def hosts(about: Iterable[About], left: Sequence[Release], connected: Iterable[str]) -> list[Host]:
    """Return every host that a revocation concerns, by name.

    Those are who was told or is ``connected``, who answered, and who has releases ``left``.
    """
    found: dict[str, Host] = {}
    last: dict[str, About] = {}

    def host(name: str) -> Host:
        return found.setdefault(name, Host(name))

    for name in connected:
        host(name)
    for row in about:
        if row.host == OWN_HOST:
            for name in row.fields.get("hosts", ()):
                host(name).told_at = host(name).told_at or row.received_at
        elif row.kind == "cleared":
            _cleared(host(row.host), row)
        else:
            last[row.host] = row
            _answered(host(row.host), row)
    for release in left:
        _left(host(release.host), release, last.get(release.host))
    for each in found.values():
        each.state = _state(each)
    return [found[name] for name in sorted(found)]


def _answered(host: Host, row: About) -> None:
    """Take in what an agent says it did."""
    if host.received_at is None:
        host.received_at = row.received_at
    if row.fields.get("reason") == SIGNAL_DONE:
        host.done_at = row.received_at
        host.ended, host.failed = (_count(row.fields.get(name)) for name in ("ended", "failed"))


def _cleared(host: Host, row: About) -> None:
    """Take in that a release is no longer out there."""
    host.cleared += 1
    if host.cleared <= NAMED:
        said = row.fields
        told = _named(str(said.get("reservation", "")), said.get("scopes") or (), said.get("run_ref"))
        host.releases.append({**told, "state": "cleared", "at": row.received_at, "n": row.n})


def _left(host: Host, release: Release, answer: About | None) -> None:
    """Take in a release that no row says is gone; none outlives the boot in which it was made."""
    if answer is not None and _count(answer.fields.get("boot_ms")) < release.boot_ms:
        return
    watched = answer is None or answer.epoch == release.epoch
    host.left += watched
    host.unwatched += not watched
    state = "left" if watched else "unwatched"
    if getattr(host, state) <= NAMED:
        told = _named(release.reservation, release.scopes, release.run_ref)
        host.releases.append({**told, "state": state, "at": None, "n": release.n})


def _state(host: Host) -> State:
    """Return the one word for a host's part; ``cleared`` only where it answered and nothing is left."""
    if host.received_at is None:
        return "silent"
    if host.done_at is None:
        return "ending"
    if host.failed:
        return "failed"
    if host.left:
        return "ending"
    return "unwatched" if host.unwatched else "cleared"


def _count(value: object) -> int:
    """Return a number that an agent says, 0 for anything else."""
    return value if type(value) is int and value >= 0 else 0


def _named(reservation: str, scopes: Sequence[str], run_ref: str | None) -> dict[str, Any]:
    """Return how a release is known: by its audit id, and by what it is of where its rows still tell."""
    return {"audit_id": audit_id(reservation), "scopes": list(scopes), "run_ref": run_ref}
