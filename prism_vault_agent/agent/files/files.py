"""The files that are out there: switched when their success is on the log, cleared on demand, and waiting for nobody.

All of it is a handful of system calls on a file system in memory, so nothing here suspends, and nothing here reads a value.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import structlog

from prism_vault_agent.agent.files.ends import Ends
from prism_vault_agent.agent.files.rendered import Rendered, recalled
from prism_vault_agent.agent.runs.run import released
from prism_vault_agent.errors import CannotCreate, Denied
from prism_vault_agent.helper.client import asking
from prism_vault_agent.model import Render, Reservation
from prism_vault_agent.scope import ScopeName
from prism_vault_agent.sink import generation, record
from prism_vault_agent.sink.place import STAGED, Place, cannot, open_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prism_vault_agent.agent.files.consumers import Consumers
    from prism_vault_agent.audit.target import Target
    from prism_vault_agent.config.settings import AgentSettings
    from prism_vault_agent.model import Receipt
    from prism_vault_agent.scope import Scope
    from prism_vault_agent.sink.generation import Staged

log = structlog.get_logger()


class Files:
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
        self._settings = settings
        self._cleared = cleared
        self._note = note
        self.ends = Ends()
        self._place: Place | None = None
        self._rendered: dict[ScopeName, Rendered] = {}
        self._numbers: dict[ScopeName, int] = {}
        self._revocations: list[Target] = []
        self._clears: dict[ScopeName, int] = {}

    def __iter__(self) -> Iterator[Rendered]:
        """Iterate over the visible generations, by scope."""
        return iter(sorted(self._rendered.values(), key=lambda each: each.scope.name))

    @property
    def memory(self) -> str:
        """How sure it is that no value reaches a disk; empty while there is no place yet."""
        return self._place.memory if self._place else ""

    @property
    def helper(self) -> str:
        """Where the helper is asked that gives files to other users; empty where none is."""
        return self._settings.helper

    def place(self) -> Place:
        """Return the place, made, checked and locked at the first use. Raises ``CannotCreate``."""
        if self._place is None:
            if not self._settings.files:
                raise CannotCreate("there is no directory for files, since XDG_RUNTIME_DIR is not set", mend="set [agent] files")
            with asking(self.helper) as helper:
                self._place = open_place(self._settings.files, self._settings.files_risks, helper.mount if helper else None)
            self.ends.place = self._place.descriptor
            told = log.info if self._place.memory == "noswap" else log.warning
            told("files.place", path=self._place.path, memory=self._place.memory)
        else:
            self._place.still()
        return self._place

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
        for end in ended.values():
            self._cleared(*end)
        with asking(self.helper) as owners:
            for name in generation.sweep(place.descriptor, self._rendered, owners):
                log.warning("files.swept", name=name)
        self._consumers.start(self)
        return {mount: version for each in self for mount, version in each.mounts.items()}

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
        self._numbers[rendered.scope.name] = rendered.number
        log.info("files.adopted", scope=name, generation=rendered.number, audit_id=reservation.audit_id)

    def apply(self, scopes: Mapping[ScopeName, Scope]) -> None:
        """Clear what a new configuration no longer allows; what it defines otherwise is stale from now on."""
        for rendered in self:
            if why := rendered.no_longer(scopes):
                self.clear(rendered, why)
        self._consumers.look()

    def begin(self, scope: ScopeName) -> tuple[int, int, int]:
        """Return the number of the next generation, and what must not have grown when it is switched."""
        self._numbers[scope] = self._numbers.get(scope, 0) + 1
        return self._numbers[scope], len(self._revocations), self._clears.get(scope, 0)

    def allowed(self, host: str, render: Render, begun: tuple[int, int, int]) -> None:
        """Raise ``Denied`` where a revocation or a clear came that means a render under way."""
        _, since, clears = begun
        scope = render.reservation.grant.scopes[0]
        meant = any(target.means(released(host, render)) for target in self._revocations[since:])
        if meant or self._clears.get(scope.name, 0) != clears:
            raise Denied("it was cleared while it was being rendered", mend="render it again, if it may be", reason="revoked")

    def publish(self, receipt: Receipt, staged: Staged, number: int, *, quiet: bool = False) -> Rendered:
        """Make a staged generation the visible one, and record that the one before is gone; ``quiet``: tell nobody.

        Raises ``CannotCreate``.
        """
        resolution = receipt.resolution
        scope = resolution.reservation.grant.scopes[0]
        place, before = self.place(), self._rendered.get(scope.name)
        try:
            with self.ends.coming(before.render if before else None, "rotated"):
                generation.switch(place.descriptor, scope.name, staged)
        except OSError as error:
            raise cannot(f"{place.path}/{scope.name}", error) from None
        render = Render(resolution.reservation, resolution.names, resolution.leases)
        self._rendered[scope.name] = Rendered(render, number, staged.files, time.time())
        if before is not None:
            self._cleared(before.render.reservation, "rotated", None)
        self._consumers.rendered(self._rendered[scope.name], first=before is None, quiet=quiet)
        return self._rendered[scope.name]

    def discard(self, staged: Staged) -> None:
        """Remove what was staged and is not wanted."""
        if self._place is not None:
            with contextlib.suppress(OSError, CannotCreate), asking(self.helper) as owners:
                generation.discard(self._place.descriptor, staged.name, owners)

    def clear(self, rendered: Rendered, why: str, signal: int | None = None) -> str:
        """Take a generation away at once, and record it durably. Return why it could not be; empty where it is gone."""
        name = rendered.scope.name
        self.void(name)
        if self._rendered.get(name) is not rendered or self._place is None:
            return ""
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
        return ""

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

    def void(self, name: ScopeName) -> None:
        """Let no render of a scope that is under way become visible."""
        self._clears[name] = self._clears.get(name, 0) + 1

    def meant(self, host: str, target: Target) -> list[Rendered]:
        """Return the generations that a target means."""
        return [each for each in self if target.means(released(host, each.render))]

    def bar(self, target: Target) -> None:
        """Let no render under way that a target means become visible."""
        self._revocations.append(target)

    def revoke(self, host: str, target: Target, number: int) -> tuple[int, int]:
        """Clear what the revocation ``number`` means, and what is being rendered; return how many there were, and failed."""
        self.bar(target)
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
        return [{**each.describe(), "consumers": self._consumers.describe(each.scope.name)} for each in self]
