"""Renders scopes to files, one at a time for each scope: when somebody asks, and anew when what is out there is stale."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent import outdated
from prism_vault_agent.agent.files.staging import FileProvider, FileSink
from prism_vault_agent.agent.files.together import Together
from prism_vault_agent.errors import PrismVaultError, Unavailable, UsageError
from prism_vault_agent.policy.reactions import tells_consumers, writes_files
from prism_vault_agent.render import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.files.rendered import Rendered
    from prism_vault_agent.agent.release import Reading
    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.model import Caller, Request
    from prism_vault_agent.render import AuditLog
    from prism_vault_agent.scope import Reaction, Scope, ScopeName

log = structlog.get_logger()

SECONDS: Final = 30.0
PAUSE_FIRST: Final = 5.0
AT_ONCE: Final = 64
PAUSE_LONGEST: Final = 300.0


class FileRenders:
    """The script of a render with its adapters for files. ``settings`` returns what the configuration says now."""

    def __init__(self, settings: Callable[[], Settings], audit: AuditLog, reading: Reading, files: Files) -> None:
        """Render with these parts."""
        self._settings = settings
        self._audit = audit
        self._reading = reading
        self._files = files
        self._wanted = asyncio.Event()
        self._renewing: set[ScopeName] = set()
        # Is told when an attempt to render files anew is over.
        self.renewed: Callable[[ScopeName], None] = lambda _: None
        self._ordered: set[ScopeName] = set()
        self._few = asyncio.Semaphore(AT_ONCE)
        self._one_at_a_time: defaultdict[ScopeName, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def render(
        self, caller: Caller, request: Request, together: Together | None = None, *, quiet: bool = False
    ) -> Rendered:
        """Render the one scope of ``request`` to its files, in a worker of its own or ``together`` with others.

        ``quiet``: nobody is told that they changed. Raises as the script does; ``UsageError`` where it has no files.
        """
        (name,) = request.scopes
        scope = self._settings().scopes.get(name)
        if scope is not None and not scope.files:
            raise UsageError(f"scope {name} has no files", mend="add [[scopes.NAME.files]], or use prism-vault exec")
        if together is not None and (scope is None or not self._goes_along(scope)):
            together = None
        deadline = time.monotonic() + SECONDS
        try:
            async with asyncio.timeout_at(deadline), self._one_at_a_time[name]:
                self._ordered.discard(name)
                scopes, before = self._settings().scopes, self._files.of_scopes([name])
                known = [dict(each.outdated) for each in before]
                begun = self._files.under_way.begin(name)
                provider = FileProvider(self._reading, self._files, together, begun[0], deadline)
                sink = FileSink(self._files, self._settings().agent.host, begun, quiet=quiet)
                timed = self._reading.metrics.timed("file", self._audit, provider, sink)
                with self._reading.metrics.rotations.rendering(name, timed.at):
                    done = await render(scopes, caller, replace(request, mode="file"), audit=timed, provider=timed, sink=timed)
        except TimeoutError:
            raise Unavailable(f"it took longer than {SECONDS:.0f} s", mend="see prism-vault status", reason="timeout") from None
        (rendered,) = self._files.of_scopes([name])
        log.info("files.rendered", audit_id=done.reservation.audit_id, scope=name, generation=rendered.number)
        for each, marks in zip(before, known, strict=True):
            rendered.outdated |= outdated.still(rendered.render, each.outdated.items() - marks.items())
        self._catch_up(rendered, scopes)
        return rendered

    def _catch_up(self, rendered: Rendered, scopes: Mapping[ScopeName, Scope]) -> None:
        """Do what was said while a render by ``scopes`` was under way: by a reload, by an order, by the provider."""
        rendered.stale |= rendered.scope.name in self._ordered
        now = self._settings().scopes
        if now is not scopes and (why := rendered.no_longer(now)):
            self._files.clear(rendered, why)
        elif self._due(rendered):
            self._wanted.set()

    async def newest(self, paths: Iterable[str]) -> dict[str, int]:
        """Return the newest version of each path that has one and whose metadata may be read."""
        deadline = time.monotonic() + SECONDS
        token = await self._reading.session.token(deadline)
        versions = [[path, 0] for path in paths]  # no version has this number, so only the newest is told
        job = {"do": "standing", "token": token, "versions": versions, "mounts": self._reading.mounts.known, "look_up": True}
        answer = await self._reading.workers.job(job, deadline)
        self._reading.mounts.known.update(answer["mounts"])
        newest: dict[str, int] = answer["newest"]
        return newest

    def reaction(self, rendered: Rendered, *, anything: bool = False) -> Reaction:
        """Return what its scope says about what is not the newest of it, or about a rotation of ``anything`` that it has."""
        changed = outdated.paths(rendered.render) if anything else rendered.outdated
        return outdated.reaction(self._settings().scopes, rendered.render, changed)

    def behind(self, name: ScopeName) -> bool:
        """Tell whether files of a scope are still to be rendered anew."""
        return any(self._due(rendered) for rendered in self._files.of_scopes([name]))

    def _due(self, rendered: Rendered) -> bool:
        return rendered.stale or (rendered.due and writes_files(self.reaction(rendered)))

    def look(self) -> None:
        """Find what drifted, and begin to render anew what is stale."""
        self._files.look()
        self.begin()

    def order(self, files: Iterable[Rendered]) -> None:
        """Have these rendered anew whatever their versions say; once more where that is under way, which may have read before."""
        for rendered in files:
            rendered.stale, rendered.retry_at = True, 0.0
            self._ordered.add(rendered.scope.name)
        self.look()

    def begin(self) -> None:
        """Begin to render anew what is stale."""
        self._reading.metrics.rotations.noticed(each.scope.name for each in self._files if self._due(each))
        self._wanted.set()

    async def run(self) -> None:
        """Render everything anew that is stale, whenever :meth:`begin` was called, until cancelled.

        It is done as who asked for it first; what fails stays as it is, and is tried again later. One that takes long holds up no
        other.
        """
        async with Together(self._reading, self._files) as together, asyncio.TaskGroup() as group:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                now = time.monotonic()
                for each in self._files:
                    if each.scope.name not in self._renewing and self._due(each) and now >= each.retry_at:
                        self._renewing.add(each.scope.name)
                        group.create_task(self._again(each, together))

    def _goes_along(self, scope: Scope) -> bool:
        """Tell whether a scope may be staged together with others.

        What a template does is bounded for the whole process, so that is one of its own; and a lease hangs on a token of its own.
        """
        return not any(file.template for file in scope.files) and not any(map(self._reading.mounts.leased, scope.bindings))

    async def _again(self, rendered: Rendered, together: Together) -> None:
        grant, name = rendered.render.reservation.grant, rendered.scope.name
        try:
            async with self._few:
                quiet = not rendered.stale and not tells_consumers(self.reaction(rendered))
                await self.render(grant.caller, grant.request, together, quiet=quiet)
        except PrismVaultError as error:
            rendered.failed(error.message, first=PAUSE_FIRST, longest=PAUSE_LONGEST)
            log.warning("files.stale", scope=name, reason=error.reason, retry_in=rendered.pause)
        except Exception as error:  # noqa: BLE001 - a defect here must end neither the agent nor the next attempt
            rendered.failed(type(error).__name__, first=PAUSE_FIRST, longest=PAUSE_LONGEST)
            log.error("files.failed", scope=name, error=type(error).__name__)
        finally:
            self._renewing.discard(name)
            self.renewed(name)
