"""The agent's two adapters of one exec: a provider whose values stay in a worker, and a sink that is the caller's socket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prism_vault_agent.agent.leases.child import now
from prism_vault_agent.agent.leases.leases import wanted
from prism_vault_agent.agent.plain import bound
from prism_vault_agent.errors import ProviderUnavailable, TokenExpired
from prism_vault_agent.model import Lease, Reservation, Resolution
from prism_vault_agent.vault.mounts import OTHER, mount_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from prism_vault_agent.agent.leases.leases import Leases
    from prism_vault_agent.agent.metrics import Metrics
    from prism_vault_agent.agent.session import Session
    from prism_vault_agent.agent.workers import Worker, Workers
    from prism_vault_agent.model import Grant
    from prism_vault_agent.scope import Binding
    from prism_vault_agent.worker.messages import Message, Room

# A server that restarts between our login and the read loses the worker's connection, not our right to read: ask once more.
ATTEMPTS: Final = 2


@dataclass(slots=True)
class Mounts:
    """What is known of the provider: its mounts, looked up once, and the latest version that each path has shown us."""

    known: dict[str, int] = field(default_factory=dict)
    latest: dict[str, Lease] = field(default_factory=dict)

    def leased(self, binding: Binding) -> bool:
        """Tell whether it is known that a release gets a lease of its own for a binding."""
        mount = mount_of(binding.reference.path, self.known)
        return binding.wanted.leased if binding.wanted else mount is not None and self.known[mount] == OTHER

    def advance(self, grant: Grant, leases: Iterable[Lease]) -> None:
        """Note what was read, or raise ``ProviderUnavailable``: an unpinned path never goes back to an older version."""
        for lease in _unpinned(grant, leases):
            if self._is_older(lease):
                raise ProviderUnavailable(
                    f"the provider answered version {lease.version} of vault://{lease.path}, after a later one",
                    mend="retry when its replicas have caught up",
                    reason="stale_read",
                )
            self.latest[lease.path] = lease

    def recall(self, grant: Grant, leases: Iterable[Lease]) -> None:
        """Note what an earlier agent has read, in whatever order: from now on nothing older is."""
        self.latest.update({lease.path: lease for lease in _unpinned(grant, leases) if not self._is_older(lease)})

    def _is_older(self, lease: Lease) -> bool:
        seen = self.latest.get(lease.path, lease)
        # A path that was deleted and written anew counts from 1 again, but later.
        return (lease.version or 0) < (seen.version or 0) and lease.created.rstrip("Z") < seen.created.rstrip("Z")


def _unpinned(grant: Grant, leases: Iterable[Lease]) -> list[Lease]:
    """Return the versions that were read of paths of which no version is named."""
    pinned = {each.path for binding in grant.bindings for each in binding.references if each.version}
    return [lease for lease in leases if lease.version is not None and lease.path not in pinned]


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading the provider takes."""

    workers: Workers
    session: Session
    mounts: Mounts
    leases: Leases
    metrics: Metrics


async def logged_in(session: Session, deadline: float, work: Callable[[str], Awaitable[Resolution]]) -> Resolution:
    """Return what ``work`` returns for a token, with one new login if the token turns out to be dead."""
    for attempt in range(1, ATTEMPTS + 1):
        token = await session.token(deadline)
        try:
            return await work(token)
        except TokenExpired:
            session.expired(token)
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


async def ask(
    reading: Reading,
    reservation: Reservation,
    job: Message,
    token: str,
    *,
    deadline: float,
    passed: int | None = None,
) -> tuple[Worker, Message, tuple[Lease, ...]]:
    """Have a worker read a grant's bindings for ``job``; return it, its answer, and the leases that it tells of.

    Where leases are about to be made, the child token that they will hang on is kept durably before.
    """
    grant, child = reservation.grant, None
    parent, policies = reading.session.facts(token)
    worker = await reading.workers.take(deadline)
    try:
        answer = await worker.ask(
            {
                **job,
                **wants(grant),
                "token": token,
                "mounts": reading.mounts.known,
                "deadline": deadline,
                "child": wanted(grant, reservation.audit_id, policies),
            },
            passed,
        )
        if "child" in answer:
            since = now()
            child = await reading.leases.intend(reservation, parent, answer["child"])
            answer = await worker.ask({"do": "go"})
            await reading.leases.read(child, (Lease(**lease) for lease in answer["leases"]), since)
    except BaseException as error:
        worker.end()
        if child is not None:
            reading.leases.abandon(child)
        if isinstance(error, ProviderUnavailable) and error.reason != "worker_lost":
            reading.session.lost(error)
        raise
    reading.mounts.known.update(answer["mounts"])
    return worker, answer, tuple(Lease(**lease) for lease in answer["leases"])


def wants(grant: Grant) -> Message:
    """Return what a job says of what a grant is to be given."""
    return {
        "bindings": bound(grant.bindings),
        "allow_names": sorted({name for scope in grant.scopes for name in scope.allow_names}),
    }


@dataclass(slots=True)
class WorkerProvider:
    """Reads secrets in a worker of its own, by a ``job`` that keeps the values. ``deadline`` is CLOCK_MONOTONIC seconds."""

    reading: Reading
    job: Callable[[Grant], Message]
    deadline: float

    async def resolve(self, reservation: Reservation) -> Resolution:
        """Read every binding, with one new login if the token turns out to be dead."""
        return await logged_in(self.reading.session, self.deadline, lambda token: self._resolve(reservation, token))

    async def _resolve(self, reservation: Reservation, token: str) -> Resolution:
        grant = reservation.grant
        worker, answer, leases = await ask(self.reading, reservation, self.job(grant), token, deadline=self.deadline)
        try:
            self.reading.mounts.advance(grant, leases)
        except ProviderUnavailable:
            worker.end()
            raise
        return Resolution(reservation, tuple(answer["names"]), leases, worker)

    def drop(self, resolution: Resolution) -> None:
        """Let the worker end, and the values with it."""
        worker_of(resolution).end()


def exec_job(rooms: tuple[Room, Room]) -> Callable[[Grant], Message]:
    """Return the job of an exec; ``rooms`` are those of a command that keeps the caller's variables, and of one that does not."""

    def job(grant: Grant) -> Message:
        room = rooms[grant.pristine]
        return {"do": "resolve", "room": {"used": room.used, "total": room.total}}

    return job


def worker_of(resolution: Resolution) -> Worker:
    """Return the worker that holds the values of a resolution of ours."""
    return resolution.held  # type: ignore[return-value]  # only this provider makes the resolutions that it is given back
