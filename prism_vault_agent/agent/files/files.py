"""The files that are out there: switched when their success is on the log, cleared on demand, and waiting for nobody.

All of it is a handful of system calls on a file system in memory, so nothing here suspends, and nothing here reads a value.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import structlog

from prism_vault_agent.agent.files.directory import Directory
from prism_vault_agent.agent.files.ends import REPLACED
from prism_vault_agent.agent.files.kept import Kept, place_of
from prism_vault_agent.agent.files.rendered import Rendered, recalled
from prism_vault_agent.agent.files.under_way import UnderWay
from prism_vault_agent.agent.runs.run import released
from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.helper.client import asking
from prism_vault_agent.model import Render, Reservation
from prism_vault_agent.scope import ScopeName
from prism_vault_agent.sink import generation, record
from prism_vault_agent.sink.place import STAGED, cannot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prism_vault_agent.agent.files.consumers import Consumers
    from prism_vault_agent.audit.target import Target
    from prism_vault_agent.config.settings import AgentSettings
    from prism_vault_agent.model import Receipt
    from prism_vault_agent.scope import Scope
    from prism_vault_agent.sink.generation import Staged

log = structlog.get_logger()


class Files(Directory):
    """The rendered files of this agent. ``cleared`` is told of each end, as that of ``Runs``."""

    def __init__(
        self,
        settings: AgentSettings,
        cleared: Callable[[Reservation, str, int | None], None],
        note: Callable[[str, str], None],
        consumers: Consumers,
    ) -> None:
        """Keep them where ``settings`` say; record ends with ``cleared``, drift with ``note``; ``consumers`` read them."""
        self._consumers = consumers
        super().__init__(settings)
        self._cleared = cleared
        self._note = note
        self._rendered: dict[ScopeName, Rendered] = {}
        self.kept = Kept(cleared, self.ends, settings.helper)
        self.under_way = UnderWay()

    def __iter__(self) -> Iterator[Rendered]:
        """Iterate over the visible generations, by scope."""
        return iter(sorted(self._rendered.values(), key=lambda each: each.scope.name))

    @property
    def held(self) -> list[Rendered]:
        """All generations that are out there: the kept ones, which nobody sees, and the visible ones."""
        return [*self.kept, *self]

    def start(self, scopes: Mapping[ScopeName, Scope]) -> dict[str, int]:
        """Adopt what an earlier agent rendered and the configuration still allows, and clear everything else.

        Return the mounts that the adopted were read from.
        """
        left = bool(self._settings.files) and os.path.isdir(os.path.join(self._settings.files, STAGED))
        if not left and not any(scope.files for scope in scopes.values()):
            return {}
        place = self.place()
        ended = {end[0].id: end for end in self.ends.left()}
        for name in os.listdir(place.descriptor):
            found = None if name.startswith(".") else record.read(place.descriptor, name)
            if found is None:
                continue
            with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                rendered = recalled(*found)
                ended.pop(rendered.render.reservation.id, None)  # it is there: its end has not come
                self._adopt(name, rendered, scopes)
            with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                if gone := self.kept.adopt(place.descriptor, self._rendered.get(ScopeName(name)), ScopeName(name), scopes):
                    self.ends.note(*gone)
                    ended.setdefault(gone[0].id, gone)
        for each in self.kept:
            ended.pop(each.render.reservation.id, None)
        for end in ended.values():
            self._cleared(*end)
        with asking(self.helper) as owners:
            kept = [place_of(each.scope.name) for each in self.kept]
            for name in generation.sweep(place.descriptor, self._rendered, owners, kept):
                log.warning("files.swept", name=name)
        if self._rendered:
            self._note("adopted", f"the files of {len(self._rendered)} scopes that an agent before rendered")
        self._consumers.start(self)
        return {mount: version for each in self.held for mount, version in each.mounts.items()}

    def _adopt(self, name: str, rendered: Rendered, scopes: Mapping[ScopeName, Scope]) -> None:
        """Look after a generation that is still allowed; the end of one that is not is recorded, and the sweep clears it."""
        reservation = rendered.render.reservation
        why = rendered.no_longer(scopes) if rendered.scope.name == name else "moved"
        if why:
            self.ends.note(reservation, why)
            self._cleared(reservation, why, None)
            return
        self.ends.forget(reservation.id)
        self._rendered[rendered.scope.name] = rendered
        self.under_way.after(rendered.scope.name, rendered.number)
        log.info("files.adopted", scope=name, generation=rendered.number, audit_id=reservation.audit_id)

    def apply(self, scopes: Mapping[ScopeName, Scope]) -> None:
        """Clear what a new configuration no longer allows; what it defines otherwise is stale from now on."""
        for rendered in self.held:
            if why := rendered.no_longer(scopes):
                self.clear(rendered, why)
        self._consumers.look()

    def publish(self, receipt: Receipt, staged: Staged, number: int, *, quiet: bool = False) -> Rendered:
        """Make a staged generation the visible one, and record that the one before is gone; ``quiet``: tell nobody.

        Raises ``CannotCreate``.
        """
        resolution = receipt.resolution
        scope = resolution.reservation.grant.scopes[0]
        place, before = self.place(), self._rendered.get(scope.name)
        try:
            keep = place_of(scope.name) if before and scope.health and scope.name not in self.kept else ""
            with self.ends.replacing(before.render if before and not keep else None):
                kept = generation.switch(place.descriptor, scope.name, staged, keep)
        except OSError as error:
            raise cannot(f"{place.path}/{scope.name}", error) from None
        render = Render(resolution.reservation, resolution.names, resolution.leases)
        self._rendered[scope.name] = Rendered(render, number, staged.files, time.time())
        if before is not None and kept:
            self.kept.add(before)
        elif before is not None:
            self._cleared(before.render.reservation, REPLACED, None)
        self._consumers.rendered(self._rendered[scope.name], first=before is None, quiet=quiet)
        return self._rendered[scope.name]

    def roll_back(self, name: ScopeName, why: str) -> Rendered:
        """Make the kept generation of a scope the visible one again, and record the end of the other. Raises ``CannotCreate``."""
        place, bad = self.place(), self._rendered[name]
        try:
            with self.ends.coming(bad.render, "rolled_back"), asking(self.helper) as owners:
                generation.bring_back(place.descriptor, name, place_of(name), owners)
        except OSError as error:
            raise cannot(f"{place.path}/{name}", error) from None
        good = self._rendered[name] = self.kept.take(name)
        good.stale, good.rejected_why = False, why
        good.rejected = {**good.outdated, **{lease.path: str(lease.version) for lease in bad.render.leases if lease.version}}
        self._cleared(bad.render.reservation, "rolled_back", None)
        self._consumers.rendered(good, first=False)
        return good

    def discard(self, name: str) -> None:
        """Remove what was staged under a name, if it was, and is not wanted."""
        if self._place is not None:
            with contextlib.suppress(OSError, CannotCreate), asking(self.helper) as owners:
                generation.discard(self._place.descriptor, name, owners)

    def clear(self, rendered: Rendered, why: str, signal: int | None = None) -> str:
        """Take a generation away at once, and record it durably. Return why it could not be; empty where it is gone."""
        name = rendered.scope.name
        self.under_way.void(name)
        visible = self._rendered.get(name) is rendered
        if self._place is None or not (visible or self.kept.has(rendered)):
            return ""
        left = self.kept.drop(self._place.descriptor, name, why, signal)
        if not visible:
            return left
        try:
            with self.ends.coming(rendered.render, why, signal), asking(self.helper) as owners:
                generation.clear(self._place.descriptor, name, owners)
        except (OSError, CannotCreate) as error:
            why = error.message if isinstance(error, CannotCreate) else os.strerror(error.errno or 0)
            log.critical("files.not_cleared", scope=name, why=why)
            rendered.error = f"cannot be cleared: {why}"
            return rendered.error
        del self._rendered[name]
        self._consumers.cleared(name)
        log.info("files.cleared", scope=name, reason=why, generation=rendered.number)
        self._cleared(rendered.render.reservation, why, signal)
        return left

    def clear_each(self, found: Iterable[Rendered], why: str) -> dict[str, list[Any]]:
        """Take generations away as :meth:`clear` does; return what is told of those ``cleared`` and of those that ``failed``."""
        told: dict[str, list[Any]] = {"cleared": [], "failed": []}
        for each in found:
            left = self.clear(each, why)
            entry = {"scope": each.scope.name, "files": [file.path for file in each.files]}
            told["failed" if left else "cleared"].append({**entry, "why": left} if left else entry)
        return told

    def end(self, why: str) -> list[str]:
        """Clear everything, what is staged too; return what could not be, with the reason."""
        left = [f"{each.scope.name} {failed}" for each in self if (failed := self.clear(each, why))]
        if self._place is not None:
            try:
                with asking(self.helper) as owners:
                    generation.sweep(self._place.descriptor, self._rendered, owners)
            except (OSError, CannotCreate) as error:
                why = error.message if isinstance(error, CannotCreate) else os.strerror(error.errno or 0)
                left.append(f"{self._place.path} {why}")
        return left

    def meant(self, host: str, target: Target) -> list[Rendered]:
        """Return the generations that a target means."""
        return [each for each in self.held if target.means(released(host, each.render))]

    def revoke(self, host: str, target: Target, number: int) -> tuple[int, int]:
        """Clear what the revocation ``number`` means, and what is being rendered; return how many there were, and failed."""
        self.under_way.bar(target)
        found = self.meant(host, target)
        return len(found), sum(bool(self.clear(each, "revoked", number)) for each in found)

    def of_scopes(self, names: Iterable[ScopeName]) -> list[Rendered]:
        """Return the generations of these scopes."""
        return [self._rendered[name] for name in names if name in self._rendered]

    def look(self) -> None:
        """Find what somebody else did to the files; each finding is logged and recorded once."""
        for rendered in self:
            assert self._place is not None
            found = record.drift(self._place.descriptor, rendered.scope.name, rendered.files)
            if found and found != rendered.drift:
                log.warning("files.drift", scope=rendered.scope.name, found=found)
                self._note("files_drift", f"{rendered.scope.name}: {', '.join(found)}")
            rendered.drift = found

    def describe(self) -> list[dict[str, Any]]:
        """Return what ``status`` shows, as it is now."""
        self.look()
        return [
            {**each.describe(), "judging": each.scope.name in self.kept, "consumers": self._consumers.describe(each.scope.name)}
            for each in self
        ]
