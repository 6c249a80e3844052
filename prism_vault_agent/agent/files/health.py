"""Judges new files, once who is told of them has been: all is well, or the generation before comes back.

That one is kept meanwhile, with its leases; whatever takes it back takes away the way back, too. What was rejected is not tried
again before something newer is there, or somebody orders it, over a restart of the agent too.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Final

import structlog

from prism_vault_agent.agent.kept import keep
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.notify import command, unit
from prism_vault_agent.notify.occasion import Occasion
from prism_vault_agent.scope import Notify

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.agent.files.consumers import Consumers
    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.files.rendered import Rendered
    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.scope import Health as Rule
    from prism_vault_agent.scope import ScopeName

log = structlog.get_logger()

LOOK_SECONDS: Final = 0.25
AGAIN_SECONDS: Final = 1.0


class Health:
    """The judgements under way. ``switching`` tells whether processes of a scope are still to take new files."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        files: Files,
        consumers: Consumers,
        note: Callable[[str, str], None],
        path: str,
    ) -> None:
        """Judge as ``settings`` say at that time, record with ``note``, and keep in ``path`` what was rejected."""
        self._settings = settings
        self._files = files
        self._consumers = consumers
        self._note = note
        self._path = path
        self._judging: dict[ScopeName, asyncio.Task[None]] = {}
        self.switching: Callable[[ScopeName], bool] = lambda _: False
        self.rolled_back: Callable[[ScopeName], None] = lambda _: None
        self.passed: Callable[[ScopeName], None] = lambda _: None

    def start(self) -> None:
        """Take over what an earlier agent rejected, for the generations that were adopted."""
        try:
            with open(self._path, encoding="utf-8") as file:
                kept = json.load(file)
            for rendered in self._files:
                if (found := kept.get(rendered.scope.name)) and found["number"] == rendered.number:
                    rendered.rejected, rendered.rejected_why = dict(found["rejected"]), str(found["why"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("health.forgotten", error=type(error).__name__, message="what was rejected is tried once more")

    def unjudged(self, name: ScopeName) -> bool:
        """Tell whether all is not known to be well with the newest of a scope: its other processes are to keep what they have."""
        found = self._files.of_scopes([name])
        return name in self._files.kept or any(each.outdated and not each.due for each in found)

    async def run(self) -> None:
        """Judge whatever is kept back for that, until cancelled; the next agent judges it anew."""
        try:
            while await self._files.kept.any.wait():
                await asyncio.sleep(LOOK_SECONDS)
                for kept in self._files.kept:
                    name = kept.scope.name
                    waits = self._consumers.waiting(name) and not self._consumers.failure(name)
                    if name not in self._judging and not waits and not self.switching(name):
                        self._judging[name] = asyncio.create_task(self._judge(name))
        finally:
            for task in self._judging.values():
                task.cancel()
            await asyncio.gather(*self._judging.values(), return_exceptions=True)

    async def _judge(self, name: ScopeName) -> None:
        try:
            (rendered,) = self._files.of_scopes([name])
            scope = self._settings().scopes.get(name)
            why = self._consumers.failure(name)
            if scope is not None and scope.health is not None and not why:
                why = await self._why(scope.health, rendered)
            if self._files.of_scopes([name]) == [rendered]:
                self._decide(rendered, why)
        finally:
            del self._judging[name]

    def _decide(self, rendered: Rendered, why: str) -> None:
        """Let go of the generation before, or bring it back."""
        name = rendered.scope.name
        if not why:
            log.info("health.passed", scope=name, generation=rendered.number)
            self._files.kept.drop(self._files.place().descriptor, name, "rotated")
            self.passed(name)
            return
        if name not in self._files.kept:
            log.error("health.failed", scope=name, generation=rendered.number, back=None, message=why)
            self._note("files_not_well", f"{name}: generation {rendered.number}: {why}; the one before was taken back meanwhile")
            return
        try:
            before = self._files.roll_back(name, why)
        except PrismVaultError as error:
            log.critical("health.not_rolled_back", scope=name, generation=rendered.number, message=error.line())
            rendered.error = f"cannot be rolled back: {error.message}"
            return
        told = f"{name}: generation {rendered.number}: {why}; generation {before.number} is back"
        log.error("health.failed", scope=name, generation=rendered.number, back=before.number, message=why)
        self._note("files_rolled_back", told)
        self._keep()
        self.rolled_back(name)

    async def _why(self, rule: Rule, rendered: Rendered) -> str:
        """Return why all is not well with a generation, else nothing."""
        deadline = time.monotonic() + rule.within
        judges = [self._by_unit(each, deadline) for each in rule.units]
        if rule.command:
            judges.append(self._by_command(rule.command, rendered, deadline))
        return next((why for why in await asyncio.gather(*judges) if why), "")

    async def _by_command(self, words: tuple[str, ...], rendered: Rendered, deadline: float) -> str:
        """Run a command until it ends with 0; return why it did not in its time."""
        agent, name = self._settings().agent, rendered.scope.name
        occasion = Occasion(name, rendered.number, f"{agent.files}/{name}", agent.helper)
        why = f"{words[0]} took too long"
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await command.tell(Notify("command", words, "", ()), occasion)
            except TimeoutError:
                break
            except PrismVaultError as error:
                why = error.message
            else:
                return ""
            await asyncio.sleep(min(AGAIN_SECONDS, max(0.0, deadline - time.monotonic())))
        return why

    async def _by_unit(self, name: str, deadline: float) -> str:
        """Watch a unit that runs, to the end of the time; return what became of it that is not well."""
        first: tuple[str, str] | None = None
        while True:
            try:
                now = await unit.standing(name)
            except PrismVaultError as error:
                return f"{name}: {error.message}"
            if first is None and now[0] == "inactive":
                return ""  # who stopped it did not ask for a start, and nobody could tell by it
            first = first or now
            if now[0] == "failed" or now[1] != first[1]:
                return f"{name} {'failed' if now[0] == 'failed' else 'ended, and was started anew'}"
            if (left := deadline - time.monotonic()) <= 0:
                return "" if now[0] == "active" else f"{name} is {now[0]}"
            await asyncio.sleep(min(AGAIN_SECONDS, left))

    def _keep(self) -> None:
        """Keep what was rejected, whole or not at all."""
        kept = {
            each.scope.name: {"number": each.number, "rejected": each.rejected, "why": each.rejected_why}
            for each in self._files
            if each.rejected_why
        }
        try:
            keep(self._path, json.dumps(kept))
        except OSError as error:
            log.error("health.not_kept", errno=error.errno, message="the next agent tries once more what was rejected")
