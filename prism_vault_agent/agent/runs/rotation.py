"""What runs do at a rotation: found, held back as their scopes' limits say, done once, and kept for the next agent.

Their files come first. Runs of the same scopes have their turn together; one that fails is tried again, ever less often.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.agent import outdated
from prism_vault_agent.agent.due import begin_when_due
from prism_vault_agent.agent.runs.runs import ON_ROTATE
from prism_vault_agent.agent.runs.switching import holder_of, names_of, no_supervisor, restart_unit, signal_main, unit_that_holds
from prism_vault_agent.agent.runs.turns import Since, Turns
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.notify.due import HOUR, Standing, begin, corrected, due, failed, seen, succeeded
from prism_vault_agent.policy.reactions import step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from prism_vault_agent.agent.outdated import Marks
    from prism_vault_agent.agent.runs.run import Run
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.audit.central_log import CentralLog
    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.policy.reactions import Step
    from prism_vault_agent.scope import Limits, ScopeName

log = structlog.get_logger()

# How often to look, so that a clock that was set, or a window, is not missed by more; and while files are to come first, should
# nobody tell that they are there, as where they were taken away.
SECONDS: Final = 20.0
BEHIND_SECONDS: Final = 0.25
UNJUDGED_SECONDS: Final = 0.5
ATTEMPT_SECONDS: Final = 120.0
_PENDING: Final = "pending"


class Rotation:
    """The turns of ``runs``. ``restart`` starts a supervised run anew, by its supervisor; it raises where that cannot be."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        runs: Runs,
        behind: Callable[[ScopeName], bool],
        audit: CentralLog,
        turns: Turns,
    ) -> None:
        """Act as ``settings`` say at that time; ``behind`` tells whether files of a scope come first; ``audit`` has the rows."""
        self._settings = settings
        self._runs = runs
        self._behind = behind
        self._audit = audit
        self._turns = turns
        self._wake = asyncio.Event()
        self._acting: dict[str, asyncio.Task[None]] = {}
        self._held_back = False
        self.unjudged: Callable[[ScopeName], bool] = lambda _: False
        self.restart: Callable[[Run], Awaitable[None]] = no_supervisor

    def start(self) -> None:
        """Take over what an earlier agent kept of the runs that were adopted."""
        self._turns.load({run.render.reservation.id for run in self._runs})
        self._turns.rows.load(self._audit.record)

    def look(self) -> None:
        """Look at all of them at once."""
        self._wake.set()

    def files_settled(self, _name: ScopeName) -> None:
        """Take note that files of a scope are the newest, or known to be well: who waits for that has a turn now."""
        if self._held_back:
            self._wake.set()

    def newest(self, newest: Mapping[str, int]) -> None:
        """Take note of the newest versions of paths."""
        for run in self._runs:
            self.note(run, outdated.newer(run.render, newest))

    def note(self, run: Run, marks: Marks) -> None:
        """Take note of what a run holds that is not the newest any more."""
        since = self._turns.runs.get(run.render.reservation.id, Since())
        if news := since.news(marks):
            since.note(news)
            self._turns.runs[run.render.reservation.id] = since
            log.info("run.outdated", audit_id=run.render.reservation.audit_id, paths=sorted(news))
            self._wake.set()

    def ordered(self, run: Run) -> None:
        """Take note that somebody ordered a rotation: of what has no versions a run has an older one from now on."""
        self.note(run, outdated.unversioned(run.render, f"ordered {time.time():.3f}"))

    def back(self, name: ScopeName) -> None:
        """Take note that files of a scope are those of before again: who got a signal for the others gets one for these."""
        for run in self._runs:
            since = self._turns.runs.get(run.render.reservation.id)
            if name in names_of(run) and since is not None and self._step(run) == "signal" and since.done:
                self.note(run, since.back(time.time()))

    def signalling(self, name: ScopeName) -> bool:
        """Tell whether a run of a scope is still to get a signal for its newest files."""
        return any(name in names_of(run) and self._pending(run) and self._step(run) == "signal" for run in self._runs)

    def _may_switch(self, run: Run) -> bool:
        """Tell whether a run may take what is newest: what cannot be taken back waits until all is known to be well with it."""
        return self._step(run) in ("signal", "cannot_restart") or not any(map(self.unjudged, names_of(run)))

    def waiting(self, name: ScopeName) -> bool:
        """Tell whether a run of a scope is still to do something about a rotation, and so may use what is older."""
        return any(name in names_of(run) and self._pending(run) for run in self._runs)

    def describe(self, run: Run) -> dict[str, Any]:
        """Return what ``status`` shows of a run."""
        since, scopes = self._turns.runs.get(run.render.reservation.id, Since()), self._settings().scopes
        at = self._due(self._key(run), self._turns.groups.get(self._key(run)), time.time()) if self._pending(run) else None
        return {
            "stale": sorted(since.outdated),
            "on_rotate": str(outdated.reaction(scopes, run.render, since.outdated)) if since.outdated else "",
            "pending": self._pending(run),
            "due_in": None if at is None else max(0, int(at - time.time())),
            "rotated": {"what": since.what, "at": int(since.at)} if since.at else None,
            "last_rotation": self._turns.times.describe(run.render.reservation.audit_id),
            "rotation_error": since.error,
        }

    async def run(self) -> None:
        """Act when it is due, until cancelled; what was under way then is done again by the next agent."""
        await begin_when_due(self._wake, self._begin_due, self._acting)

    def _begin_due(self) -> float:
        """Begin every turn that is due; return in how many seconds to look again."""
        now, wait, self._held_back = time.time(), SECONDS, False
        known = {run.render.reservation.id for run in self._runs}
        self._turns.runs = {run: since for run, since in self._turns.runs.items() if run in known}
        pending: defaultdict[str, list[Run]] = defaultdict(list)
        for run in filter(self._pending, self._runs):
            if self._may_switch(run):
                pending[self._key(run)].append(run)
            else:
                wait, self._held_back = UNJUDGED_SECONDS, True
        for key in {*pending, *self._turns.groups} - self._acting.keys():
            delay = random.uniform(0, max((each.splay for each in self._limits(key)), default=0.0))  # noqa: S311 - no secret
            standing = corrected(self._turns.groups.get(key, Standing("")), now)
            standing = self._turns.groups[key] = seen(standing, _PENDING if key in pending else "", now, delay)
            at = self._due(key, standing, now)
            if at is None:
                if not standing.begun or standing.begun[-1] < now - HOUR:
                    del self._turns.groups[key]
                continue
            if any(self._behind(name) for name in _scopes(key)):
                wait, self._held_back = min(wait, BEHIND_SECONDS), True
            elif at > now:
                wait = min(wait, at - now)
            else:
                self._turns.groups[key] = begin(standing, now)
                self._acting[key] = asyncio.create_task(self._turn(key, pending[key]))
        self._turns.save()
        return wait

    def _due(self, key: str, standing: Standing | None, now: float) -> float | None:
        """Return when these scopes' runs have their turn: when the limits of all of them allow it."""
        if standing is None or standing.since is None:
            return None
        return max((due(each, standing, now) or now for each in self._limits(key)), default=now)

    def _limits(self, key: str) -> list[Limits]:
        scopes = self._settings().scopes
        return [scopes[name].rotate_limits for name in _scopes(key) if name in scopes]

    def _key(self, run: Run) -> str:
        return ",".join(sorted(names_of(run)))

    def _step(self, run: Run) -> Step:
        scopes, since = self._settings().scopes, self._turns.runs.get(run.render.reservation.id, Since())
        return step(outdated.reaction(scopes, run.render, since.outdated), holder_of(scopes, run))

    def _pending(self, run: Run) -> bool:
        """Tell whether something is to be done about what has changed for a run, and has not been yet."""
        since = self._turns.runs.get(run.render.reservation.id)
        if since is None or not since.outdated.items() - since.done.items() or run.why != "exited":
            return False
        return self._step(run) != "leave"

    async def _turn(self, key: str, runs: list[Run]) -> None:
        """Do what is to be done with these runs, each by itself, and note how that ended."""
        units: dict[str, asyncio.Future[str]] = {}
        try:
            whys = [why for why in await asyncio.gather(*(self._one(run, units) for run in runs)) if why]
            standing = self._turns.groups[key]
            self._turns.groups[key] = failed(standing, whys[0]) if whys else succeeded(standing, "")
        finally:
            del self._acting[key]
            self._turns.save()
            self._wake.set()

    async def _one(self, run: Run, units: dict[str, asyncio.Future[str]]) -> str:
        """Do it with one run; return why that failed, else nothing."""
        since, doing = self._turns.runs[run.render.reservation.id], self._step(run)
        marks, audit_id = dict(since.outdated), run.render.reservation.audit_id
        told = f"{audit_id}: {doing.replace('_', ' ')}, {', '.join(sorted(marks))}"
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                idle = await self._do(doing, run, units)
        except Exception as error:  # noqa: BLE001 - a defect here must end neither the agent nor the next attempt
            why = error.line() if isinstance(error, PrismVaultError) else type(error).__name__
            log.warning("run.not_rotated", audit_id=audit_id, doing=doing, message=why)
            if why != since.error:
                self._audit.note("run_rotation_failed", f"{told}: {why}")
            since.error = why
            return why
        since.done, since.at, since.error, since.what = marks, time.time(), "", doing
        level = log.warning if doing == "cannot_restart" else log.info
        level("run.rotated", audit_id=audit_id, pid=run.pid, did=doing, paths=sorted(marks), message=idle)
        took = {} if doing == "cannot_restart" else self._turns.times.switched(audit_id, since.noticed)
        reason = "run_not_restarted" if doing == "cannot_restart" else "run_rotated"
        self._turns.rows.tell(reason, told + (f": {idle}" if idle else ""), took, self._audit.record)
        return ""

    async def _do(self, what: Step, run: Run, units: dict[str, asyncio.Future[str]]) -> str:
        """Do one step; return what is to be said of it. Raises why it could not be done."""
        settings = self._settings()
        if what == "cannot_restart":
            return "nobody would start it again: run it with --supervise or in a unit that its scope names, or write terminate"
        if what == "terminate":
            self._runs.end([run], ON_ROTATE)
        elif what == "restart":
            await self.restart(run)
        elif what == "signal":
            said = outdated.reaction(settings.scopes, run.render, self._turns.runs[run.render.reservation.id].outdated)
            return await signal_main(run, said.signal, settings.agent.helper)
        elif what == "restart_unit":
            name = unit_that_holds(settings.scopes, run)
            if name not in units:  # it may hold several credentials, each a run of its own
                restarting = restart_unit(name, run.render.reservation.grant.scopes[0].name, settings.agent.helper)
                units[name] = asyncio.ensure_future(restarting)
            return await asyncio.shield(units[name])
        return ""


def _scopes(key: str) -> list[Any]:
    return key.split(",")
