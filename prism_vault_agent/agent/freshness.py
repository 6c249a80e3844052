"""How long ago the provider last said that what is out there stands, and what is taken back where that is too long.

While the provider does not answer, what was given out stays in use: files and processes hold their values already, and nothing is
served anew. ``stale_ok`` of a scope, or of one variable, bounds that. It is counted from the last answer of the provider, over
restarts of the agent too, on CLOCK_BOOTTIME.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.agent.files.rendered import Rendered
from prism_vault_agent.agent.kept import keep
from prism_vault_agent.agent.leases.child import boot, now
from prism_vault_agent.scope import stale_bound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.leases.leases import Leases
    from prism_vault_agent.agent.runs.run import Run
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.model import Render, ReservationId
    from prism_vault_agent.scope import Scope

log = structlog.get_logger()

TICK: Final = 0.5
IDLE: Final = 5.0
# An agent that has just started has not logged in yet: so long it waits for the provider's first answer.
FIRST_ANSWER: Final = 10.0
# So many polls without an answer are no passing failure.
POLLS: Final = 2.0
LARGEST: Final = 4096


class Freshness:
    """Looks after the age of what ``runs`` and ``files`` hold, where a scope bounds it."""

    def __init__(
        self,
        runs: Runs,
        files: Files,
        leases: Leases,
        settings: Callable[[], Settings],
        *,
        note: Callable[[str, str], None],
        path: str,
    ) -> None:
        """Record what becomes stale with ``note``; keep in the file ``path`` when the provider last answered."""
        self._runs = runs
        self._files = files
        self._leases = leases
        self._settings = settings
        self._note = note
        self._path = path
        self._confirmed: dict[str, float] = {}
        self._given: dict[ReservationId, float] = {}
        self._stale: dict[ReservationId, float] = {}
        self._last = self._saved = _load(path)
        self._asked = now() + FIRST_ANSWER
        self._adopted: frozenset[ReservationId] | None = None

    def confirm(self, paths: Iterable[str]) -> None:
        """Take note that the provider has just told how these stand."""
        self._last = now()
        self._asked = min(self._asked, self._last)
        self._confirmed |= dict.fromkeys(paths, self._last)

    async def run(self) -> None:
        """Take back what is stale for too long, until cancelled."""
        while True:
            bounded = self.tick()
            await asyncio.sleep(TICK if bounded else IDLE)

    def tick(self) -> bool:
        """Tell what has become stale, or is no longer, and take back what has been for too long; return whether anything may."""
        at, bounded = now(), any(map(_is_bounded, self._settings().scopes.values()))
        holders = {each.render.reservation.id: each for each in (*self._runs, *self._files)}
        # What an earlier agent gave out was confirmed when that one last had an answer, as far as anybody knows.
        if self._adopted is None:
            self._adopted = frozenset(holders)
            self._given = dict.fromkeys(holders, min(at, self._last) if self._last else at)
        self._given = {each: self._given.get(each, at) for each in holders}
        held = {lease.path for holder in holders.values() for lease in holder.render.leases}
        self._confirmed = {path: when for path, when in self._confirmed.items() if path in held}
        for reservation, holder in holders.items():
            self._judge(reservation, holder, at)
        self._stale = {each: since for each, since in self._stale.items() if each in holders}
        if bounded and self._last > self._saved:
            self._save()
        return bounded

    def describe(self, render: Render) -> dict[str, Any]:
        """Return what ``status`` shows of a release: for how many seconds it is stale, and in how many that ends; or nothing."""
        since = self._stale.get(render.reservation.id)
        if since is None:
            return {"stale_for": None, "stale_ends_in": None}
        ends = self.ends(render)
        return {"stale_for": int(now() - since), "stale_ends_in": int(max(0.0, min(ends.values(), default=0.0) - now()))}

    def ends(self, render: Render) -> dict[str, float]:
        """Return of each bounded path of a release when it may be used no more, unless it is confirmed before."""
        return {path: when + bound for path, when, bound in self._parts(render)}

    def _judge(self, reservation: ReservationId, holder: Run | Rendered, at: float) -> None:
        patience = self._patience(holder.render)
        if reservation in (self._adopted or ()) and at < self._asked + patience:
            return  # what an earlier agent left is asked about first
        parts = self._parts(holder.render)
        overdue = [when for _, when, bound in parts if at - when > min(bound, patience)]
        if overdue and reservation not in self._stale:
            self._stale[reservation] = min(overdue)
            self._tell("stale", holder.render, f"not confirmed for {int(at - min(overdue))} s")
        elif not overdue and self._stale.pop(reservation, None) is not None:
            self._tell("fresh", holder.render, "confirmed again")
        if over := [path for path, when, bound in parts if at - when >= bound]:
            if isinstance(holder, Rendered):
                self._files.clear(holder, "stale")
            elif not self._runs.leaves(holder, over):
                self._runs.end([holder], "stale", paths=over)

    def _patience(self, render: Render) -> float:
        """Return how many seconds without an answer are no passing failure: it is asked as often as its scopes say."""
        settings = self._settings()
        scopes = [settings.scopes.get(scope.name, scope) for scope in render.reservation.grant.scopes]
        return POLLS * max(settings.vault.poll, *(scope.poll or 0.0 for scope in scopes))

    def _parts(self, render: Render) -> list[tuple[str, float, float]]:
        """Return the bounded paths of a release, when each was confirmed, and how long it may be used after that, in seconds."""
        reservation = render.reservation
        scopes = [self._settings().scopes.get(scope.name, scope) for scope in reservation.grant.scopes]
        given = self._given.get(reservation.id, now())
        looked = {lease.path: child.confirmed for child in self._leases.of(reservation.id) for lease in child.leases}
        found = []
        for lease in render.leases:
            if lease.version is None and lease.path not in looked:
                continue  # nobody looks at what has neither a version nor an end
            bounds = [bound for scope in scopes if (bound := stale_bound(scope, lease.path)) is not None]
            if bounds:
                confirmed = looked.get(lease.path, 0.0), self._confirmed.get(lease.path, 0.0), given
                found.append((lease.path, max(confirmed), min(bounds)))
        return found

    def _tell(self, word: str, render: Render, how: str) -> None:
        reservation = render.reservation
        scopes = ", ".join(scope.name for scope in reservation.grant.scopes)
        log.warning("release.freshness", now=word, audit_id=reservation.audit_id, message=how)
        self._note(word, f"{reservation.audit_id}: {scopes}: {how}")

    def _save(self) -> None:
        """Write when the provider last answered. A disk that does not take it is no reason to stop."""
        with contextlib.suppress(OSError):
            keep(self._path, json.dumps({"boot": boot(), "at": self._last}))
        self._saved = self._last


def _is_bounded(scope: Scope) -> bool:
    return scope.stale_ok is not None or any(each.stale_ok is not None for each in scope.keys)


def _load(path: str) -> float:
    """Return when an earlier agent of this boot last had an answer; 0 where none is known."""
    try:
        with open(path, "rb") as file:
            kept = json.loads(file.read(LARGEST))
        return float(kept["at"]) if kept["boot"] == boot() else 0.0
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0
