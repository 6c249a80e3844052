"""Everything that may happen: to the host, its agent, the provider and central."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.agent.front.peer import Peer
from prism_vault_agent.audit.target import ANY, Target
from prism_vault_agent.model import Request
from prism_vault_agent.scope import ScopeName
from tests.model.configuration import KEY, PATHS
from tests.model.told import Told

if TYPE_CHECKING:
    import asyncio

# What may be wrong with the two services; the last one ends it all.
TROUBLE: Final = (
    "provider away", "provider back", "provider refuses", "provider loses answers", "engine down", "replica behind",
    "central away", "central back", "central denies", "central loses answers", "workers lost", "readers lost", "children lost",
    "consumers fail", "not well", "all well",
)  # fmt: skip


class World(Told):
    """A host to which it happens."""

    def exec(self, scopes: tuple[str, ...], run_ref: str, *, stubborn: bool, seconds: float) -> None:
        """Have a process ask for the values of scopes."""
        client = self.processes.start(scopes, run_ref, self.clock.monotonic, stubborn=stubborn, seconds=seconds)
        self.processes.ask(client, str(self.socket), seconds)

    def render(self, scope: str) -> asyncio.Task[Any] | None:
        """Have files rendered."""
        if self.parts is None:
            return None
        peer = Peer(os.geteuid(), os.getegid(), os.getpid(), os.pidfd_open(os.getpid()), guaranteed=True)
        try:
            asked = peer.caller()
        finally:
            peer.close()
        return self.do(self.parts.requests.render(asked, Request((ScopeName(scope),))))

    def clear(self, scope: str | None) -> None:
        """Have files cleared, of a scope or of all, which is done at once."""
        if self.parts is not None and self.loop is not None:
            names = None if scope is None else (ScopeName(scope),)
            self._at_once(partial(self.parts.requests.clear, os.geteuid(), names))

    def order(self, kind: str, target: dict[str, Any]) -> None:
        """Order a rotation or revocation on this host."""
        if self.parts is None:
            return
        meant = Target.parse(target, [ANY])
        if kind == "rotation":
            self._at_once(partial(self.parts.orders.rotate, os.geteuid(), meant))
        else:
            self.do(self.parts.orders.revoke(os.geteuid(), meant))

    def _at_once(self, act: Any) -> None:
        async def acting() -> Any:
            return act()

        self.do(acting())

    def reload_to(self, name: str) -> None:
        """Write another configuration, and have the agent told of it."""
        self.configuration.change(name)
        if self.loop is not None:
            self._hang_up.set()

    def trouble(self, what: str) -> None:
        """Have something go wrong, or be well again."""
        provider, central = self.provider, self.central
        if what.startswith("provider "):
            provider.away = what == "provider away"
        if what.startswith("central "):
            central.away = what == "central away"
        provider.refusing |= what == "provider refuses"
        provider.engine_down |= what == "engine down"
        provider.lagging |= what == "replica behind"
        provider.losing = 2 if what == "provider loses answers" else provider.losing
        provider.dying = 2 if what == "workers lost" else provider.dying
        provider.dying_readers = 2 if what == "readers lost" else provider.dying_readers
        provider.dying_children = 1 if what == "children lost" else provider.dying_children
        central.losing = 2 if what == "central loses answers" else central.losing
        central.denied = frozenset(("web", "both", "left")) if what == "central denies" else central.denied
        self.deaf |= what == "consumers fail"
        self.ill |= what == "not well"
        if central.away:
            central.lose()
        if what == "all well":
            provider.away = provider.refusing = provider.engine_down = provider.lagging = central.away = False
            provider.losing = provider.dying = provider.dying_readers = provider.dying_children = central.losing = 0
            self.deaf = self.ill = False
            central.denied = frozenset()

    def mend(self) -> None:
        """Have everybody answer, and an agent run that has every scope."""
        self.trouble("all well")
        if self.loop is not None:
            self.loop.turns.fuse = None
        else:
            self.start()
        self.reload_to("all")
        self.provider.kv[KEY][-1].deleted = ""
        for path in PATHS:  # a scope is of one moment: it stays at what it has while one of its paths cannot be read
            if not self.provider.kv[path][-1].stands:
                self.provider.write(path)
        self.run(10.0)
        self.order("rotation", {"everything": True})  # what was rejected is tried again
