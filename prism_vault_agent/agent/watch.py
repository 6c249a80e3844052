"""Looks after what was given out: what was deleted or destroyed at the provider is taken back within one poll.

Runs are ended, files are cleared; files of which there is a newer version are rendered anew. Each path is asked for as often as
the scopes want that have it, and all of it together takes a bounded number of requests a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import time
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent import outdated
from prism_vault_agent.agent.files.rendered import Rendered
from prism_vault_agent.agent.runs.run import Run
from prism_vault_agent.errors import PrismVaultError, ProviderUnavailable, TokenExpired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prism_vault_agent.agent.budget import Budget
    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.files.renders import FileRenders
    from prism_vault_agent.agent.freshness import Freshness
    from prism_vault_agent.agent.release import Reading
    from prism_vault_agent.agent.runs.rotation import Rotation
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.config.settings import Settings

log = structlog.get_logger()

# Who has which version of a path.
Holders = dict[int, list[Run | Rendered]]

JOB_SECONDS: Final = 10.0
LONGEST_PAUSE: Final = 300.0
# What the provider said that it changes is asked for so often from then on, for so long: OpenBao comes to it every five seconds.
CHANGE_POLL: Final = 1.0
CHANGE_SECONDS: Final = 10.0


class Watch:
    """Polls the versions that are out there, by metadata only: one poll a path, however many runs."""

    def __init__(
        self,
        reading: Reading,
        runs: Runs,
        files: Files,
        renders: FileRenders,
        *,
        rotation: Rotation,
        budget: Budget,
        freshness: Freshness,
        settings: Callable[[], Settings],
    ) -> None:
        """Look after these as ``settings`` say at that time, within ``budget``.

        What is outdated is for ``renders`` and ``rotation``; what the provider answered of is told to ``freshness``.
        """
        self._rotation = rotation
        self._budget = budget
        self._freshness = freshness
        self._files = files
        self._renders = renders
        self._reading = reading
        self._runs = runs
        self._settings = settings
        self._wanted = asyncio.Event()
        self._due: dict[str, float] = {}  # CLOCK_MONOTONIC seconds, by path
        self._failures: dict[str, int] = {}
        self._unlisted: set[str] = set()

    def now(self, given: Iterable[Run | Rendered] | None = None) -> None:
        """Poll what these have at once, or everything, and then as before: what nobody asked about spends nothing."""
        meant = [*self._runs, *self._files.held] if given is None else given
        self._due |= {lease.path: 0.0 for each in meant for lease in each.render.leases}
        self._unlisted.clear()  # a policy may allow by now what it did not
        self._wanted.set()

    def next_check(self, given: Run | Rendered) -> int:
        """Return in how many seconds some of what was given out is asked for next, at the latest."""
        due = [self._due[lease.path] for lease in given.render.leases if lease.path in self._due]
        return max(0, round(min(due, default=time.monotonic() + self._interval([given])) - time.monotonic()))

    async def run(self) -> None:
        """Poll until cancelled; what cannot be asked now is asked again at the next turn."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wanted.wait()
            self._wanted.clear()
            begun = False
            try:
                while due := self._now_due():
                    await self._budget.take(len(due))
                    self._budget.unused(len(due) - await self._look(due))
                    self._renders.begin()
                    begun = True
            except PrismVaultError as error:
                log.warning("watch.failed", reason=error.reason, message=error.message)
                if isinstance(error, ProviderUnavailable):
                    self._reading.session.lost(error)
            if not begun:
                self._renders.begin()  # what is to be tried again
            self._files.look()

    def _pause(self) -> float:
        """Return the seconds until something is due; what is given out meanwhile is not due before its own scope's interval."""
        settings = self._settings()
        shortest = min((scope.poll or settings.vault.poll for scope in settings.scopes.values()), default=settings.vault.poll)
        until = min((due - time.monotonic() for due in self._due.values()), default=shortest)
        return max(0.0, min(until, _jittered(shortest)))

    def _interval(self, holders: Iterable[Run | Rendered]) -> float:
        """Return the seconds between two polls of what these have: as the scope of them says that wants it most often."""
        settings = self._settings()
        names = {scope.name for each in holders for scope in each.render.reservation.grant.scopes}
        scopes = [settings.scopes[name] for name in names if name in settings.scopes]
        return min((scope.poll or settings.vault.poll for scope in scopes), default=settings.vault.poll)

    def _held_by_path(self) -> dict[str, Holders]:
        """Return the versions that are out there, and with whom, by path."""
        held: dict[str, Holders] = {}
        for each in (*self._runs, *self._files.held):
            for lease in each.render.leases:
                if lease.version is not None:
                    held.setdefault(lease.path, {}).setdefault(lease.version, []).append(each)
        return held

    def _changing(self) -> dict[str, float]:
        """Return in how many seconds to ask for versions that end by themselves, by path, as the provider told of their end."""
        found: dict[str, float] = {}
        for each in (*self._runs, *self._files.held):
            age = time.time() - _given_at(each)
            for lease in each.render.leases:
                if lease.version is not None and lease.seconds and (left := lease.seconds - age) > -CHANGE_SECONDS:
                    found[lease.path] = min(found.get(lease.path, math.inf), max(CHANGE_POLL, left))
        return found

    def _now_due(self) -> dict[str, Holders]:
        """Return what is to be asked now, the longest due first, no more than a second's requests; it is due again later."""
        held, now, changing = self._held_by_path(), time.monotonic(), self._changing()
        intervals = {path: min(self._interval(_holders(held[path])), changing.get(path, math.inf)) for path in held}
        for path in held.keys() - self._due.keys():  # given out while we slept: its interval began then
            age = time.time() - min(map(_given_at, _holders(held[path])))
            self._due[path] = now + _jittered(intervals[path]) - min(max(0.0, age), intervals[path])
        self._due = {path: self._due[path] for path in held}
        self._failures = {path: count for path, count in self._failures.items() if path in held}
        due = sorted((path for path in held if self._due[path] <= now), key=lambda path: self._due[path])
        chosen = due[: self._budget.most]
        for path in chosen:
            pause = min(intervals[path] * 2 ** self._failures.get(path, 0), max(LONGEST_PAUSE, intervals[path]))
            self._due[path] = now + _jittered(pause)
        return {path: held[path] for path in chosen}

    async def _look(self, held: dict[str, Holders]) -> int:
        """Ask for these, act on the answer, and return how many requests it took."""
        deadline = time.monotonic() + JOB_SECONDS
        token = await self._reading.session.token(deadline)
        job = {
            "do": "standing",
            "token": token,
            "versions": [(path, version) for path, versions in held.items() for version in versions],
            "mounts": self._reading.mounts.known,
            "unlisted": sorted(self._unlisted),
        }
        try:
            answer = await self._reading.workers.job(job, deadline)
        except TokenExpired:
            self._reading.session.expired(token)
            return 1
        self._unlisted.update(answer["unlisted"])
        self._note_failures(held, answer["failed"])
        self._freshness.confirm(path for path in held if path not in answer["failed"])
        for path, version, how in answer["withdrawn"]:
            self._withdrawn(path, version, how, held[path][version])
        for rendered in self._files:
            rendered.note(outdated.newer(rendered.render, answer["newest"]))
        self._rotation.newest(answer["newest"])
        return int(answer["requests"])

    def _note_failures(self, asked: Mapping[str, Holders], failed: dict[str, str]) -> None:
        """Ask ever less often for a path that cannot be asked for; it is told once, and when it can be again."""
        for path in asked:
            if path in failed:
                self._failures[path] = self._failures.get(path, 0) + 1
                if self._failures[path] == 1:
                    log.warning("watch.path_failed", path=path, message=failed[path])
            elif self._failures.pop(path, 0):
                # Within its interval, and not after the pause that it was given.
                self._due[path] = time.monotonic() + _jittered(self._interval(_holders(asked[path])))
                log.info("watch.path_answers", path=path)

    def _withdrawn(self, path: str, version: int, how: str, holders: list[Run | Rendered]) -> None:
        """Take back what holds a version that stands no longer."""
        runs = [each for each in holders if isinstance(each, Run) and not self._runs.leaves(each, {path})]
        files = [each for each in holders if isinstance(each, Rendered)]
        if not runs and not files:
            return
        log.warning("secret.withdrawn", path=path, version=version, how=how, runs=len(runs), files=len(files))
        for rendered in files:
            self._files.clear(rendered, f"secret_{how}")
        self._runs.end(runs, f"secret_{how}", paths={path})


def _holders(versions: Holders) -> Iterator[Run | Rendered]:
    return itertools.chain.from_iterable(versions.values())


def _given_at(given: Run | Rendered) -> float:
    """Return when something was given out, in seconds since 1970."""
    return given.at if isinstance(given, Rendered) else given.started_at


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.0)  # noqa: S311 - jitter is no secret
