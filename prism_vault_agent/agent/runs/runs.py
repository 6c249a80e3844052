"""What is out there: a run for each process that holds values, watched by its descriptor, ended on demand, logged at its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psutil
import structlog

from prism_vault_agent.agent.runs.signalling import signal_all
from prism_vault_agent.audit.target import Released, as_read
from prism_vault_agent.errors import CannotCreate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from prism_vault_agent.agent.runs.records import RunRecords
    from prism_vault_agent.audit.target import Target
    from prism_vault_agent.model import Render, Reservation
    from prism_vault_agent.scope import ScopeName

log = structlog.get_logger()

NOT_OURS: Final = "the agent may not signal another user's process"


def released(host: str, render: Render) -> Released:
    """Return a render as a target of central's sees it."""
    grant = render.reservation.grant
    return Released(
        host=host,
        project=grant.scopes[0].project,
        scopes=frozenset(scope.name for scope in grant.scopes),
        run_ref=grant.request.run_ref,
        references=as_read(
            (each for binding in grant.bindings for each in binding.references),
            {lease.path: lease.version for lease in render.leases},
        ),
    )


@dataclass(slots=True, eq=False)
class Run:
    """A process that holds the values of a render. ``pidfd`` stays valid when the client becomes the command."""

    render: Render
    pidfd: int
    started_at: float
    ended: asyncio.Event
    why: str = "exited"
    signal: int | None = None
    how: str = "ended by itself"

    # How long it may take to end after SIGKILL, in seconds, and what is told when it has not.
    patience: float | None = None
    stays: str = ""

    @property
    def pid(self) -> int:
        """The process."""
        return self.render.reservation.grant.caller.pid

    def held(self) -> bool:
        """Tell whether it still holds the values; the end of a process is told by its descriptor."""
        return True

    def descriptors(self) -> Iterator[int]:
        """Iterate over descriptors of all processes that hold the values, each good until the next."""
        yield self.pidfd

    def describe(self) -> dict[str, Any]:
        """Return what ``status`` shows."""
        grant = self.render.reservation.grant
        return {
            "id": self.render.reservation.audit_id,
            "scopes": [scope.name for scope in grant.scopes],
            "purpose": grant.purpose,
            "run_ref": grant.request.run_ref,
            "job_id": grant.request.job_id,
            "pid": self.pid,
            "uid": grant.caller.uid,
            "kind": grant.kind,
            "unit": "",
            "command": _command(self.pid),
            "started_at": int(self.started_at),
            "age": int(time.time() - self.started_at),
        }


def _command(pid: int) -> str:
    """Return the name of the program that a process is now, or nothing where it has just ended."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""


class Runs:
    """The runs of this agent. ``cleared`` is told of each end: exited, revoked or scope_removed."""

    def __init__(self, cleared: Callable[[Reservation, str, int | None], None], records: RunRecords, helper: str = "") -> None:
        """Tell ends to ``cleared``: of what, why, and for which signal of central's. What is out there is in ``records``.

        Processes of other users are signalled by the helper at ``helper``, where the agent may not.
        """
        self.records = records
        self._helper = helper
        self._cleared = cleared
        self._revocations: list[tuple[str, Target, int | None, bool]] = []
        self._runs: set[Run] = set()
        self._ending: dict[Run, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[Run]:
        """Iterate over the runs, oldest first."""
        return iter(sorted(self._runs, key=lambda run: run.started_at))

    @property
    def revocations(self) -> int:
        """How many revocations there were; what begins now is not meant by any of them."""
        return len(self._revocations)

    def watch(self, render: Render, pidfd: int, since: int | None = None, *, at: float | None = None) -> Run:
        """Watch the process behind ``pidfd``, which is ours to close from now on.

        It was given its values ``at``, seconds since 1970, else now. It is ended where a revocation meant it that came while its
        render was under way: after ``since`` of them.
        """
        run = Run(render, pidfd, at or time.time(), asyncio.Event())
        asyncio.get_running_loop().add_reader(pidfd, self._end, run)
        return self.begin(run, since)

    def begin(self, run: Run, since: int | None) -> Run:
        """Look after a run from now on; see :meth:`watch` for ``since``."""
        self._runs.add(run)
        for host, target, number, now in [] if since is None else self._revocations[since:]:
            if target.means(released(host, run.render)):
                run.signal = number
                self.end([run], "revoked", now=now)
        return run

    def meant(self, host: str, target: Target) -> list[Run]:
        """Return the runs of ``host`` that a target means."""
        return [run for run in self if target.means(released(host, run.render))]

    def revoked(self, host: str, target: Target, number: int | None, *, now: bool) -> list[Run]:
        """Return the runs that a revocation means, for the caller to end; what is still being rendered is ended.

        ``number`` is central's; None for one of this host.
        """
        self._revocations.append((host, target, number, now))
        found = self.meant(host, target)
        for run in found:
            run.signal = number
        return found

    def _end(self, run: Run) -> None:
        asyncio.get_running_loop().remove_reader(run.pidfd)
        os.close(run.pidfd)
        self._over(run)

    def look(self) -> None:
        """Find the runs that hold their values no more."""
        for run in [each for each in self._runs if not each.held()]:
            self._over(run)

    def _over(self, run: Run) -> None:
        self._runs.discard(run)
        self._cleared(run.render.reservation, run.why, run.signal)
        self.records.drop(run.render.reservation.id)
        run.ended.set()

    async def revoke(self, run: Run, why: str, *, now: bool = False) -> dict[str, Any]:
        """End a run: SIGTERM, then SIGKILL after its scopes' shortest grace, or ``now``.

        Return how it ended, or why it could not be.
        """
        grant = run.render.reservation.grant
        grace = min(scope.grace for scope in grant.scopes)
        if run.ended.is_set():
            return {"pid": run.pid, "how": run.how}
        run.why = why
        try:
            with contextlib.suppress(ProcessLookupError):
                if not now:
                    await signal_all(run.descriptors(), signal.SIGTERM, self._helper)
                    run.how = "SIGTERM"
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(grace):
                            await run.ended.wait()
                # Its descriptor is closed as soon as it has ended, and its number may be another run's by now.
                if not run.ended.is_set():
                    await signal_all(run.descriptors(), signal.SIGKILL, self._helper)
                    run.how = "SIGKILL"
            async with asyncio.timeout(run.patience):
                await run.ended.wait()
        except (PermissionError, CannotCreate, TimeoutError) as error:
            run.why, run.signal = "exited", None
            why = run.stays if isinstance(error, TimeoutError) else NOT_OURS
            why += f": {error.line()}" if isinstance(error, CannotCreate) else ""
            log.error("revoke.not_permitted", pid=run.pid, uid=grant.caller.uid, why=why)
            return {"pid": run.pid, "why": why}
        return {"pid": run.pid, "how": run.how}

    async def revoke_all(self, runs: Collection[Run], why: str) -> list[dict[str, Any]]:
        """End several runs at once."""
        return list(await asyncio.gather(*(self.revoke(run, why) for run in runs)))

    def end(self, runs: Iterable[Run], why: str, *, now: bool = False) -> None:
        """Begin to end several runs, without waiting for their grace; one that is being ended already is left to that."""
        for run in runs:
            if run not in self._ending:
                self._ending[run] = asyncio.create_task(self._end_one(run, why, now=now))

    async def _end_one(self, run: Run, why: str, *, now: bool) -> None:
        try:
            await self.revoke(run, why, now=now)
        finally:
            del self._ending[run]

    def of_scopes(self, names: Collection[ScopeName]) -> list[Run]:
        """Return the runs that hold values of any of these scopes."""
        return [run for run in self._runs if any(scope.name in names for scope in run.render.reservation.grant.scopes)]
