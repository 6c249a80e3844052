"""Looks after the leases that are out there: renews them, finds those that were ended, revokes those that nobody holds.

What ends is taken back where it is: a run is ended, files are cleared, as at any revocation. Files are rendered anew before that.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.files.rendered import Rendered
from prism_vault_agent.agent.leases.child import StillThere, now
from prism_vault_agent.agent.leases.look import LeaseLook
from prism_vault_agent.agent.outdated import leased
from prism_vault_agent.agent.runs.run import Run
from prism_vault_agent.errors import PrismVaultError, TokenExpired

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.agent.budget import Budget
    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.files.renders import FileRenders
    from prism_vault_agent.agent.leases.child import Child
    from prism_vault_agent.agent.outdated import Marks
    from prism_vault_agent.agent.release import Reading
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.model import ReservationId
    from prism_vault_agent.scope import ScopeName
    from prism_vault_agent.worker.messages import Message

log = structlog.get_logger()

TICK: Final = 0.5
JOB_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
PAUSE_FIRST: Final = 0.5
PAUSE_LONGEST: Final = 60.0
AT_ONCE: Final = 8


class LeaseWatch:
    """Attends to the leases of ``reading``; ``interval`` is seconds between two looks at the provider."""

    def __init__(
        self,
        reading: Reading,
        runs: Runs,
        files: Files,
        renders: FileRenders,
        *,
        waiting: Callable[[ScopeName], bool],
        outdated: Callable[[Run, Marks], None],
        note: Callable[[str, str], None],
        interval: float,
        budget: Budget,
    ) -> None:
        """Look at them within ``budget``.

        ``waiting`` tells who uses older files still, ``outdated`` is told which runs need another lease, ``note`` records.
        """
        self._leases = reading.leases
        self._reading = reading
        self._runs = runs
        self._files = files
        self._renders = renders
        self._waiting = waiting
        self._outdated = outdated
        self._note = note
        self._look = LeaseLook(self._job, interval, budget)
        self._wanted = asyncio.Event()
        self._few = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._leases.wake = self._wanted.set

    async def run(self) -> None:
        """Attend until cancelled. Nothing that the provider does, or does not, holds up the others or an expiry."""
        try:
            while True:
                self.tick()
                if any(True for _ in self._leases):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(TICK):
                            await self._wanted.wait()
                else:
                    await self._wanted.wait()
                self._wanted.clear()
        finally:
            for task in self._tasks:
                task.cancel()

    async def close(self) -> None:
        """Revoke what waits for it, once, for a moment: what is left is the next agent's, or ends with our token."""
        for child in self._leases:
            # Where its scope has no files any more nobody has newer ones to wait for.
            child.replaced = child.replaced and bool(self._files.of_scopes(child.reservation.grant.request.scopes))
            if not child.in_use:
                self._begin(self._attend(child), child)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    def tick(self) -> None:
        """Take back what has ended, and begin what is due."""
        at, holders = now(), self._holders()
        for child in self._leases:
            holder = holders.get(child.reservation.id)
            if child.ending:
                self._wait_for_consumers(child, at)
                due = child.revoke_at <= at
            else:
                self._expire(child, holder, at)
                self._replace_parent(child, holder)
                due = holder is not None and child.due <= at
            if due and not child.busy and not (child.ending and not self._reading.session.reachable and child.pause):
                self._begin(self._attend(child), child)
        held = [child for child in self._leases if not child.ending and child.reservation.id in holders]
        if held and self._look.due(at):
            self._look.begin()
            self._begin(self._look.at(held, self._withdrawn), None)

    def _begin(self, work: object, child: Child | None) -> None:
        if child is not None:
            child.busy = True
        task: asyncio.Task[None] = asyncio.create_task(work)  # type: ignore[arg-type]  # one of our coroutines
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _holders(self) -> dict[ReservationId, Run | Rendered]:
        """Return the runs and the files by their release; one that is being rendered has none yet."""
        return {each.render.reservation.id: each for each in (*self._runs, *self._files.held)}

    def _expire(self, child: Child, holder: Run | Rendered | None, at: float) -> None:
        """Take back what ends: files at their end, a run so much earlier that its grace is over by then."""
        if holder is None or child.expires == math.inf:
            return
        if (child.expires if isinstance(holder, Rendered) else child.ask_at) <= at:
            self._take_back(child, holder, "lease_expired")

    def _take_back(self, child: Child, holder: Run | Rendered, why: str) -> None:
        paths = sorted(lease.path for lease in child.leases)
        if isinstance(holder, Run) and self._runs.leaves(holder, paths):
            return
        log.warning("lease.ended", audit_id=child.reservation.audit_id, reason=why, paths=paths)
        if isinstance(holder, Rendered):
            self._files.clear(holder, why)
        else:
            self._runs.end([holder], why, paths=paths)

    def _replace_parent(self, child: Child, holder: Run | Rendered | None) -> None:
        """Have files rendered anew whose leases hang on a token that is not the agent's any more."""
        current = self._reading.session.accessor
        another = bool(current) and child.parent != current and not child.orphan
        if isinstance(holder, Rendered) and another and not (holder.stale or holder.outdated):
            holder.outdated |= leased(holder.render, "login")
            self._renders.look()

    def _wait_for_consumers(self, child: Child, at: float) -> None:
        """Put off a revocation while somebody who uses the old files is still to be told of the new ones, up to its own end."""
        if child.replaced and child.expires > at and any(map(self._waiting, child.reservation.grant.request.scopes)):
            grace = max(scope.grace for scope in child.reservation.grant.scopes)
            child.revoke_at = max(child.revoke_at, at + max(grace, 2 * TICK))

    async def _attend(self, child: Child) -> None:
        """Revoke or renew one child token, or note why that failed and when it is tried again."""
        try:
            async with self._few:
                await (self._revoke(child) if child.ending else self._renew(child))
            child.pause, child.error = 0.0, ""
        except PrismVaultError as error:
            child.pause = min(max(PAUSE_FIRST, child.pause * 2), PAUSE_LONGEST)
            again = now() + child.pause * random.uniform(0.75, 1.25)  # noqa: S311 - jitter is no secret
            child.due = child.revoke_at = again
            if not child.error:
                doing = "revoke" if child.ending else "renew"
                log.warning("lease.failed", doing=doing, audit_id=child.reservation.audit_id, reason=error.reason)
                if child.ending:
                    self._note("leases_not_revoked", f"{child.reservation.audit_id}: {error.message}; it is tried again")
            child.error = error.message
        finally:
            child.busy = False

    async def _job(self, job: Message) -> Message:
        """Have a worker ask the provider; a token that turns out to be dead is told to the session."""
        deadline = time.monotonic() + JOB_SECONDS
        token = await self._reading.session.token(deadline)
        try:
            return await self._reading.workers.job({**job, "token": token}, deadline)
        except TokenExpired:
            self._reading.session.expired(token)
            raise

    async def _revoke(self, child: Child) -> None:
        answer = await self._job({"do": "give_back", "accessor": child.accessor, "leases": child.lease_ids})
        if answer["remaining"]:
            raise StillThere(f"the provider has not ended {len(answer['remaining'])} leases yet")
        await self._leases.gone(child)
        if child.leases:
            paths = sorted({lease.path for lease in child.leases})
            log.info("lease.revoked", audit_id=child.reservation.audit_id, paths=paths)
            self._note("leases_revoked", f"{child.reservation.audit_id}: {', '.join(paths)}")
        if child.parent and not self._reading.session.is_ours(child.parent) and not self._leases.in_use(child.parent):
            self._leases.put_off(child.parent, child)

    async def _renew(self, child: Child) -> None:
        """Renew a child token and its leases; where nothing makes them live longer, another one is due."""
        holder = self._holders().get(child.reservation.id)
        if child.capped or child.replace_at <= now():
            if isinstance(holder, Rendered):
                holder.outdated |= leased(holder.render, "lease")
                self._renders.look()
            elif holder is not None:
                self._outdated(holder, leased(holder.render, "lease"))
            child.replace_at = math.inf
            if child.capped:
                child.due = math.inf
                return
        accessors = {child.accessor: child.seconds}
        if child.parent and not self._reading.session.is_ours(child.parent):
            accessors[child.parent] = child.seconds
        answer = await self._job({"do": "extend", "accessors": accessors, "leases": child.renewable})
        if child.ending:
            return
        child.extended(answer["left"])
        await self._leases.renewed(child)
        if child.ending:
            return
        self._withdrawn(child, answer["left"])

    def _withdrawn(self, child: Child, left: dict[str, int]) -> None:
        """Take back what hangs on a child token or a lease that is gone."""
        gone = any(left.get(each, 1) <= 0 for each in (child.accessor, *child.lease_ids))
        if gone and not child.ending and (holder := self._holders().get(child.reservation.id)):
            # The server tells whole seconds, so none is left in the last one.
            self._take_back(child, holder, "lease_expired" if child.expires <= now() + 1.0 + TICK else "lease_revoked")
