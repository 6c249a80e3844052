"""What is out there: a run for each process that holds values, watched by its descriptor, ended on demand, logged at its end."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.agent.front.peer import open_again
from prism_vault_agent.agent.runs.ending import end
from prism_vault_agent.agent.runs.following import Following
from prism_vault_agent.agent.runs.run import Run, released
from prism_vault_agent.agent.trees.tree import swept
from prism_vault_agent.policy.reactions import TERMINATE
from prism_vault_agent.policy.still import no_longer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from prism_vault_agent.agent.runs.records import RunRecords
    from prism_vault_agent.agent.trees.guards import Guard
    from prism_vault_agent.agent.trees.tree import Tree
    from prism_vault_agent.audit.target import Target
    from prism_vault_agent.model import Render, Reservation
    from prism_vault_agent.scope import Reaction, Scope, ScopeName

log = structlog.get_logger()

# Between two looks at what has outlived its process: at first, and in the end.
LOOK_FIRST: Final = 0.005
LOOK_SECONDS: Final = 1.0
# Why a run ends that its scope has ended at a rotation: whatever it says about revocations.
ON_ROTATE: Final = "on_rotate"
# Why runs are ended with the agent that gave them their values, where it says so: whatever their scopes say, as above.
STOPPED: Final = "stopped"
LEFT: Final = "it keeps what was taken back, as on_revoke = clear says; end it, or revoke with --emergency"


class Runs:
    """The runs of this agent. ``cleared`` is told of each end: exited, revoked or scope_removed."""

    def __init__(self, cleared: Callable[[Reservation, str, int | None], None], records: RunRecords, helper: str = "") -> None:
        """Tell ends to ``cleared``: of what, why, and for which signal of central's. What is out there is in ``records``.

        ``helper`` signals other users' processes where the agent may not.
        """
        self.records = records
        # Told of each run that is ended, and why, before it is.
        self.for_good: Callable[[Run, str], None] = lambda _run, _why: None
        self.helper = helper
        self._cleared = cleared
        self._revocations: list[tuple[str, Target, int | None, bool]] = []
        self._runs: set[Run] = set()
        self._ending: dict[Run, asyncio.Task[None]] = {}
        self._outlived: set[Run] = set()
        self._looking: asyncio.Task[None] | None = None
        self._pause = LOOK_FIRST
        self._left: dict[Run, str] = {}
        self._following = Following()
        # What the scopes of a render say about these of its paths; None: all of them.
        self.on_revoke: Callable[[Render, Collection[str] | None], Reaction] = lambda _render, _paths: TERMINATE
        self.note: Callable[[str, str], None] = lambda _reason, _message: None

    def __iter__(self) -> Iterator[Run]:
        """Iterate over the runs, oldest first."""
        return iter(sorted(self._runs, key=lambda run: run.started_at))

    @property
    def revocations(self) -> int:
        """How many revocations there were; what begins now is not meant by any of them."""
        return len(self._revocations)

    def watch(
        self,
        render: Render,
        pidfd: int,
        since: int | None = None,
        *,
        tree: Tree | None = None,
        guards: Collection[Guard] = (),
        at: float | None = None,
    ) -> Run:
        """Watch the process behind ``pidfd``, which is ours to close from now on, and the ``tree`` that it is the first of.

        It was given its values ``at``, seconds since 1970, else now. It is ended where a revocation meant it that came while its
        render was under way: after ``since`` of them. A ``pidfd`` of -1 says that it has ended, and has left something.
        It is ended where its ``guards`` have ended before it: those of a supervised one end it, unless all are killed at once.
        """
        run = Run(render, pidfd, at or time.time(), tree or swept(render.reservation.grant.caller))
        if pidfd >= 0:
            asyncio.get_running_loop().add_reader(pidfd, self._end, run)
        else:
            self._look_after(run)
        self.begin(run, since)
        if guards:
            run.guards = list(guards)
            self._guard(run)
        self._following.add(run)
        return run

    def begin(self, run: Run, since: int | None) -> Run:
        """Look after a run from now on; see :meth:`watch` for ``since``."""
        self._runs.add(run)
        for host, target, number, now in [] if since is None else self._revocations[since:]:
            if target.means(released(host, run.render)):
                run.signal = number
                self.end([run], "revoked", now=now, paths=target.paths)
        return run

    def meant(self, host: str, target: Target) -> list[Run]:
        """Return the runs of ``host`` that a target means."""
        return [run for run in self if target.means(released(host, run.render))]

    def revoked(self, host: str, target: Target, number: int | None, *, now: bool) -> list[Run]:
        """Return the runs that a revocation means, for the caller to end; what is still being rendered is ended.

        ``number`` is central's; None for one of this host.
        """
        self._revocations.append((host, target, number, now))
        for run in (found := self.meant(host, target)):
            run.signal = number
        return found

    def _end(self, run: Run) -> None:
        asyncio.get_running_loop().remove_reader(run.pidfd)
        os.close(run.pidfd)
        run.pidfd = -1
        if run.held():
            self._look_after(run)
        else:
            self._over(run)

    def _guard(self, run: Run) -> None:
        """Watch the first of its guards that lives; end what is left of it where there is none."""
        while run.guards:
            guard = open_again(*run.guards[0])
            if guard is not None:
                run.guard = guard
                asyncio.get_running_loop().add_reader(guard, self._guard_ended, run)
                return
            del run.guards[0]
        self._look_at(run)
        if run in self._runs:
            log.warning("run.unguarded", audit_id=run.render.reservation.audit_id, pid=run.pid)
            self.end([run], "exited", now=True)

    def _guard_ended(self, run: Run) -> None:
        self._leave_guard(run)
        del run.guards[0]
        self._guard(run)

    def _leave_guard(self, run: Run) -> None:
        if run.guard >= 0:
            asyncio.get_running_loop().remove_reader(run.guard)
            os.close(run.guard)
            run.guard = -1

    def _look_after(self, run: Run) -> None:
        """Look at what has outlived its process until nothing of it is left."""
        self._outlived.add(run)
        self._pause = LOOK_FIRST
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())

    async def _look_on(self) -> None:
        while self._outlived:
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, LOOK_SECONDS)
            for run in list(self._outlived):
                self._look_at(run)

    def look(self) -> None:
        """Find the runs that hold their values no more."""
        for run in list(self._runs):
            self._look_at(run)

    def _look_at(self, run: Run) -> None:
        if run in self._runs and not run.held():
            self._over(run)

    def _over(self, run: Run) -> None:
        self._runs.discard(run)
        self._left.pop(run, None)
        self._outlived.discard(run)
        self._following.drop(run)
        self._leave_guard(run)
        run.tree.remove()
        self._cleared(run.render.reservation, run.why, run.signal)
        run.ended.set()

    async def revoke(self, run: Run, why: str, *, now: bool = False, paths: Collection[str] | None = None) -> dict[str, Any]:
        """End a run: as its scopes say of these ``paths``, then SIGKILL after their shortest grace; or at once, ``now``.

        Return how it ended, or why it did not.
        """
        said = TERMINATE if now or why in (ON_ROTATE, STOPPED) else self.on_revoke(run.render, paths)
        if said.does == "clear" and not run.ended.is_set():
            return self._leave(run, why)
        self.for_good(run, why)
        first = signal.Signals[f"SIG{said.signal or 'TERM'}"]
        return await end(run, why, now=now, helper=self.helper, look=self._look_at, first=first)

    def _leave(self, run: Run, why: str) -> dict[str, Any]:
        """Leave a run with what was taken back, because its scopes say so: that weakens what a revocation promises."""
        if run not in self._left:
            self._left[run] = why
            audit_id = run.render.reservation.audit_id
            log.critical("revoke.left", audit_id=audit_id, pid=run.pid, reason=why, message=LEFT)
            self.note("run_left", f"{audit_id}: {why}; {LEFT}")
        return {"pid": run.pid, "why": LEFT}

    def leaves(self, run: Run, paths: Collection[str]) -> bool:
        """Tell whether a run is left, and would be at a revocation of these paths, too: then there is nothing new to be told."""
        return run in self._left and self.on_revoke(run.render, paths).does == "clear"

    def left(self, run: Run) -> str:
        """Return why a run that is left should have been ended; nothing for any other."""
        return self._left.get(run, "")

    async def revoke_all(self, runs: Collection[Run], why: str, *, paths: Collection[str] | None = None) -> list[dict[str, Any]]:
        """End several runs at once."""
        return list(await asyncio.gather(*(self.revoke(run, why, paths=paths) for run in runs)))

    def end(self, runs: Iterable[Run], why: str, *, now: bool = False, paths: Collection[str] | None = None) -> None:
        """Begin to end several runs, without waiting for their grace; one that is being ended already is left to that."""
        for run in runs:
            if run not in self._ending:
                self._ending[run] = asyncio.create_task(self._end_one(run, why, now=now, paths=paths))

    async def settled(self) -> None:
        """Return when no run is being ended any more, whether that was possible or not."""
        while self._ending:
            await asyncio.wait(self._ending.values())

    async def _end_one(self, run: Run, why: str, *, now: bool, paths: Collection[str] | None) -> None:
        try:
            await self.revoke(run, why, now=now, paths=paths)
        finally:
            del self._ending[run]

    def judge(self, scopes: Mapping[ScopeName, Scope], runs: Iterable[Run]) -> None:
        """Begin to end those of these runs that ``scopes`` do not admit any more."""
        for run in runs:
            if why := no_longer(scopes, run.render.reservation.grant):
                self.end([run], why)
