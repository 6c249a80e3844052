"""Who reads the rendered files, and is told when they change: each by itself, so that one that hangs or fails holds up no other.

What a consumer knows is compared with what is there, so a change is not lost: neither one that came while it could not be told,
nor one whose agent was killed before it told. It may be told twice, by the agent that was killed and by the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.agent.due import begin_when_due
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.notify import command, container, process, unit
from prism_vault_agent.notify.due import Standing, begin, corrected, due, failed, seen, succeeded
from prism_vault_agent.notify.occasion import Occasion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from prism_vault_agent.agent.files.rendered import Rendered
    from prism_vault_agent.agent.files.standings import Standings
    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.scope import Notify, NotifyKind, ScopeName
    from prism_vault_agent.sink.record import Written

log = structlog.get_logger()

# How often to look, so that a clock that was set, or a window, is not missed by more.
SECONDS: Final = 20.0
AT_ONCE: Final = 64
TELL: Final[dict[NotifyKind, Callable[[Notify, Occasion], Awaitable[str]]]] = {
    "unit": unit.tell,
    "pid_file": process.tell,
    "container": container.tell,
    "command": command.tell,
}


class Consumers:
    """The consumers of all scopes. ``settings`` returns what the configuration says now; ``note`` records on the audit log."""

    def __init__(
        self, settings: Callable[[], Settings], note: Callable[[str, str, Mapping[str, int]], None], standings: Standings
    ) -> None:
        """Tell them as ``settings`` say; how it stands with each is kept in ``standings``."""
        self._settings = settings
        self._note = note
        self._standings = standings
        self._rendered: dict[ScopeName, Rendered] = {}
        self._changed: set[ScopeName] = set()
        self._telling: dict[tuple[ScopeName, str], asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        # Told of each scope of which somebody was told; returns how long that rotation took, in milliseconds to each stage.
        self.told: Callable[[ScopeName], Mapping[str, int]] = lambda _: {}

    def start(self, adopted: Iterable[Rendered]) -> None:
        """Look after what an earlier agent rendered; what it told of anything else means nothing any more."""
        self._rendered = {each.scope.name: each for each in adopted}
        self._standings.load(self._rendered)
        self.look()

    def rendered(self, rendered: Rendered, *, first: bool, quiet: bool = False) -> None:
        """Note a new generation. Nobody is told of the ``first`` one: who reads it is started after it, or has it rendered.

        Nor of one that is to be ``quiet``; but who was still to be told of an older one is told of this.
        """
        name = rendered.scope.name
        if first:
            self._standings.forget(name)
        self._rendered[name] = rendered
        for notify in self._of(name) if quiet else ():
            standing = self._standings.of(name, str(notify))
            if standing is not None and standing.since is None:
                self._standings.put(name, str(notify), replace(standing, told=_state(rendered, notify)))
        self._look(name)
        self._wake.set()

    def cleared(self, name: ScopeName) -> None:
        """Note that files are gone; nobody is told here, and the next generation is a first one."""
        self._rendered.pop(name, None)
        self._standings.forget(name)
        self._wake.set()

    def look(self) -> None:
        """Look at all of them at once, because the configuration changed."""
        self._changed.update(self._rendered)
        self._wake.set()

    def describe(self, name: ScopeName) -> list[dict[str, Any]]:
        """Return what ``status`` shows of the consumers of a scope."""
        now = time.time()
        told = []
        for notify in self._of(name):
            standing = self._standings.of(name, str(notify))
            at = due(notify, standing, now) if standing else None
            told.append(
                {
                    "consumer": str(notify),
                    "due": at is not None,
                    "due_in": None if at is None else int(at - now),
                    "error": standing.error if standing else "",
                    "failures": standing.failures if standing else 0,
                    "attempted_at": int(standing.begun[-1]) if standing and standing.begun else None,
                    "note": standing.note if standing else "",
                }
            )
        return told

    def failure(self, name: ScopeName) -> str:
        """Return which consumer of a scope could not be told of the newest files, and why; nothing where none failed."""
        for notify in self._of(name):
            standing = self._standings.of(name, str(notify))
            if standing is not None and standing.since is not None and standing.error:
                return f"{notify}: {standing.error}"
        return ""

    def waiting(self, name: ScopeName) -> bool:
        """Tell whether somebody is still to be told of the newest files of a scope, and so may use older ones."""
        return any(each["due"] for each in self.describe(name))

    async def run(self) -> None:
        """Tell who is to be told, when it is due, until cancelled; who is being told then is told again by the next agent."""
        await begin_when_due(self._wake, self._begin_due, self._telling)

    def _begin_due(self) -> float:
        """Begin to tell everybody who is due; return in how many seconds to look again."""
        now = time.time()
        wait = SECONDS
        while self._changed:
            self._look(self._changed.pop())
        for name, rendered in self._rendered.items():
            for notify in self._of(name):
                key = (name, str(notify))
                standing = self._standings.of(*key)
                if standing is None or standing.since is None or key in self._telling:
                    continue
                standing = corrected(standing, now)
                self._standings.put(*key, standing)
                at = due(notify, standing, now) or now
                if at > now:
                    wait = min(wait, at - now)
                elif len(self._telling) < AT_ONCE:  # else the end of one wakes us
                    self._standings.put(*key, begin(standing, now))
                    self._telling[key] = asyncio.create_task(self._tell(name, notify, rendered))
        self._standings.save()
        return wait

    def _of(self, name: ScopeName) -> tuple[Notify, ...]:
        scope = self._settings().scopes.get(name)
        return scope.notify if scope else ()

    def _look(self, name: ScopeName) -> None:
        """Compare what each consumer of a scope knows with what is there. One that is new in the configuration knows it."""
        rendered = self._rendered.get(name)
        if rendered is None:
            return
        notifies = self._of(name)
        self._standings.keep(name, map(str, notifies))
        for notify in notifies:
            files = _state(rendered, notify)
            standing = self._standings.of(name, str(notify)) or Standing(files)
            delay = random.uniform(0, notify.splay)  # noqa: S311 - that hosts differ is no secret
            self._standings.put(name, str(notify), seen(standing, files, time.time(), delay))

    async def _tell(self, name: ScopeName, notify: Notify, rendered: Rendered) -> None:
        key = (name, str(notify))
        about = {"scope": name, "consumer": str(notify), "generation": rendered.number}
        agent = self._settings().agent
        occasion = Occasion(name, rendered.number, f"{agent.files}/{name}", agent.helper)
        why = idle = ""
        try:
            async with asyncio.timeout(notify.timeout):
                idle = await TELL[notify.kind](notify, occasion)
        except TimeoutError:
            why = f"it took longer than {notify.timeout:g} s; raise timeout, or see why it hangs"
        except PrismVaultError as error:
            why = error.line()
        except Exception as error:  # noqa: BLE001 - a defect here must end neither the agent nor the next attempt
            why = type(error).__name__
        finally:
            del self._telling[key]
            self._changed.add(name)  # it may have changed again meanwhile
            self._wake.set()
        standing = self._standings.of(*key)
        if standing is None or not standing.begun:  # cleared, or taken out of the configuration, meanwhile
            return
        if why:
            self._standings.put(*key, failed(standing, why))
            log.warning("notify.failed", message=why, failures=standing.failures + 1, **about)
            if why != standing.error:
                self._note("notify_failed", f"{name}: generation {rendered.number}, {notify}: {why}", {})
        else:
            self._standings.put(*key, succeeded(standing, _state(rendered, notify), idle))
            log.info("notify.nobody" if idle else "notify.told", message=idle, **about)
            told = f"{name}: generation {rendered.number}, {notify}" + (f": {idle}" if idle else "")
            self._note("notified", told, self.told(name))


def _state(rendered: Rendered, notify: Notify) -> str:
    """Return what tells whether the files of a consumer are others: what fstat(2) said of them, condensed. Nothing of a value."""
    # Without its inode: a file of another user that did not change is another one with the same time (see ``sink/owner.py``).
    mine = sorted((replace(each, inode=0) for each in _parts(rendered.files, notify)), key=lambda each: each.path)
    return hashlib.sha256(repr(mine).encode()).hexdigest()


def _parts(files: Iterable[Written], notify: Notify) -> Iterator[Written]:
    """Yield the files that are a consumer's; one of format ``dir`` is a directory of them."""
    return (each for each in files if each.path.partition("/")[0] in notify.files)
