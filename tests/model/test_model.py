"""The agent against a model of everything around it: whatever happens, in whichever order, what must always hold holds.

What holds each promise (``Invariants``, after every step), or at the moment itself (``Seen``), and where the rest of it is shown:

- G1 ``_released``; at each delivery and each switch of files, ``_on_job`` and ``_switched``. G2 at each read, ``_on_read``.
- G3 ``_rows``; that each has its one end, ``end``.
- G4 ``_no_value``: rows, log, state and records. Memory: ``tests/agent/test_memory.py``; arguments, core files: ``test_leaks.py``
  there; swap: the threats' tests end to end, in ``docs/evidence.md``.
- G5 ``_files``. That it is so at each instant, and on tmpfs: ``tests/sink``.
- G6 ``taken_back`` and ``_leases``; that the order is kept, consumers before leases, ``Told._on_revoke``. Trees: ``tests/trees``.
- G7 the time in which ``taken_back`` wants it gone runs on while provider and central are away, for what this host orders; G1 and
  G2 while they are away are that nothing is released. The errors told: ``tests/agent/test_provider_answers.py``.
- G8 ``_released``; that each end is on the log, ``end``. Changes of the log: ``tests/central/test_tamper.py``.

Commands that are supervised are not here: their parent and its lifeline are processes that wait in the kernel, and simulated time
leads none. Restarts are shown in real time, ``tests/supervise``; when there is one, and how late, ``test_restarting.py`` there.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.model.configuration import BINDS, CONFIGURATIONS, FILES, ISSUE, KEY, PATHS
from tests.model.invariants import Invariants
from tests.model.world import TROUBLE, World
from tests.support.soak import count

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.model.seen import Out

# After so many turns of its loop the agent crashes; 0: it does not.
FUSES = st.sampled_from([0, 0, 5, 20, 60])
SCOPES = st.sampled_from([("web",), ("db",), ("both",), ("web", "db"), ("calm",), ("left",), ("calm", "left")])
PAUSES = st.sampled_from([0.0, 0.02, 0.05, 0.3, 2.0])
# After an order, long enough for it to be carried out, or not.
ORDERED = st.sampled_from([0.0, 0.05, 2.0, 10.0, 10.0])
TARGETS = st.sampled_from(
    [
        {"everything": True},
        {"scope": "web"},
        {"scope": "db"},
        {"scope": "calm"},
        {"scope": "left"},
        {"host": "server1"},
        {"run_ref": "run-1"},
        {"reference": "vault://secret/web#key"},
        {"reference": "vault://database/creds/db"},
        {"reference": "vault://secret/other#key"},
        {"reference": f"vault://{ISSUE}#certificate"},
        {"reference": f"vault://{KEY}#token"},
    ]
)


class Model(RuleBasedStateMachine):
    """What may happen. Each rule ends with a pause, which may be too short for what it began to be over."""

    template: ClassVar[Path]
    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.template)
        self.holds = Invariants(self.world)
        self.world.start()

    def _step(self, what: str, seconds: float) -> None:
        self.counts["steps"] += 1
        self.counts[what] += 1
        crashes = self.world.counts["crashes"]
        self.world.run(seconds)
        self.holds.passed(seconds)
        if self.world.counts["crashes"] > crashes:
            self.holds.crashed()
        self.holds.check()

    @initialize()
    def begin(self) -> None:
        """Begin with everything out there."""
        for scope in FILES:
            self.world.render(scope)
            self.world.exec((scope,), "run-1", stubborn=False, seconds=10.0)
        self._step("begin", 2.0)

    @rule(scope=st.sampled_from(FILES), pause=PAUSES)
    def render(self, scope: str, pause: float) -> None:
        """Have files rendered."""
        self.world.render(scope)
        self._step("render", pause)

    @rule(
        scopes=SCOPES, run_ref=st.sampled_from(["run-1", "run-2"]), stubborn=st.booleans(),
        seconds=st.sampled_from([0.1, 1.0, 10.0]), pause=PAUSES,
    )  # fmt: skip
    def exec(self, scopes: tuple[str, ...], run_ref: str, *, stubborn: bool, seconds: float, pause: float) -> None:
        """Have a process ask for values."""
        self.world.exec(scopes, run_ref, stubborn=stubborn, seconds=seconds)
        self._step("exec", pause)

    @rule(
        what=st.sampled_from(["write", "write", "delete", "destroy", "undelete"]),
        path=st.sampled_from((*PATHS, *PATHS, KEY)),
        pause=PAUSES,
    )
    def change(self, what: str, path: str, pause: float) -> None:
        """Change a secret at the provider."""
        if what == "write" and path != KEY:
            self.world.provider.write(path)
        elif what in ("undelete", "write"):
            self.world.provider.kv[path][-1].deleted = ""
        else:
            self.world.provider.withdraw(path, destroy=what == "destroy" and path != KEY)
            self.holds.withdrawn(path)
        self._step(what, pause)

    @rule(kind=st.sampled_from(["rotation", "revocation"]), meant=TARGETS, emergency=st.booleans(), fuse=FUSES, pause=ORDERED)
    def signal(self, kind: str, meant: dict[str, Any], *, emergency: bool, fuse: int, pause: float) -> None:
        """Have central tell all hosts; where there is a ``fuse`` the agent crashes while it acts on it, and comes back."""
        if kind == "revocation":
            self.holds.revoked(*_meaning(meant), central=True, emergency=emergency)
        self.world.central.order(kind, meant, emergency=emergency)
        self._step(kind, pause if not fuse else self._crash(fuse))

    def _crash(self, turns: int) -> float:
        """Have the agent crash after so many turns, and the next one start; return for how long to wait then."""
        self.world.crash_kills_workers = False
        self.world.burn(turns)
        self.world.run(3.0)
        self.holds.passed(3.0)
        if self.world.loop is None:
            self.holds.crashed()
            self.world.start()
        self.world.loop.turns.fuse = None  # type: ignore[union-attr]  # it was just started
        return 10.0

    @precondition(lambda self: self.world.loop is not None)
    @rule(kind=st.sampled_from(["rotation", "revocation"]), meant=TARGETS, pause=ORDERED)
    def order(self, kind: str, meant: dict[str, Any], pause: float) -> None:
        """Have somebody on this host order it."""
        if kind == "revocation":
            self.holds.revoked(*_meaning(meant), central=False)
        self.world.order(kind, meant)
        self._step(f"local {kind}", pause)

    @rule(data=st.data(), what=st.sampled_from(["clear", "end", "token", "lease"]), pause=PAUSES)
    def lose(self, data: Any, what: str, pause: float) -> None:
        """Clear files, end a process, or end a token or a lease at the provider."""
        provider = self.world.provider
        holding, tokens, leases = list(self.world.processes.holding()), list(provider.tokens.values()), list(provider.leases)
        if what == "end" and holding:
            data.draw(st.sampled_from(holding)).end()
        elif what == "token" and tokens:
            provider.end(data.draw(st.sampled_from(tokens)))
        elif what == "lease" and leases:
            provider.leases.pop(data.draw(st.sampled_from(leases)))
        else:
            self.world.clear(data.draw(st.sampled_from(FILES)))
        self._step(what, pause)

    @rule(name=st.sampled_from(sorted(CONFIGURATIONS)), pause=PAUSES)
    def reload(self, name: str, pause: float) -> None:
        """Change the configuration."""
        if name != self.world.configuration.name:
            self.world.reload_to(name)
            self.holds.reloaded()
        self._step("reload", pause)

    @rule(what=st.sampled_from(TROUBLE), pause=PAUSES)
    def trouble(self, what: str, pause: float) -> None:
        """Have one of the services fail, or all be well."""
        self.world.trouble(what)
        self._step(what, pause)

    @rule(seconds=st.sampled_from([1.0, 10.0, 10.0, 60.0, 300.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._step("wait", seconds)

    @rule(seconds=st.sampled_from([60.0, 700.0, 3600.0, 86400.0 * 3]))
    def suspend(self, seconds: float) -> None:
        """Suspend the host."""
        self.world.clock.suspend(seconds)
        self._step("suspend", 1.0)

    @rule(turns=st.integers(-100, 150), killed=st.booleans(), pause=PAUSES)
    def end_agent(self, turns: int, *, killed: bool, pause: float) -> None:
        """Stop the agent, have it crash after so many turns of its loop, or start the next one."""
        if self.world.loop is None:
            self.world.start()
            self._step("start", pause)
        elif turns < 0:
            self.world.stop()
            self.holds.crashed()
            self._step("stop", pause)
        else:
            self.world.crash_kills_workers = killed
            self.world.burn(turns)
            self._step("fuse", pause)

    def teardown(self) -> None:
        """Have all end, and look what is left."""
        try:
            if sys.exc_info()[0] is None:
                self.holds.end()
            self.counts.update(self.world.counts)
        finally:
            self.world.close()


def _meaning(target: dict[str, Any]) -> tuple[Callable[[Out], bool], frozenset[str] | None]:
    """Return what a target means, and the paths that it names, None for all."""
    path = target.get("reference", "").removeprefix("vault://").partition("#")[0]
    if path:
        return lambda out: any(path in BINDS[scope] for scope in out.scopes), frozenset((path,))
    if "scope" in target:
        return lambda out: target["scope"] in out.scopes, None
    if "run_ref" in target:
        return lambda out: out.run_ref == target["run_ref"], None
    return lambda _: True, None


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_what_must_hold_holds_whatever_happens(template: Path) -> None:
    """Rotations, revocations, crashes, reloads and outages in any order: G1 to G8 hold after every step, and no lease is lost."""
    Model.template = template
    Model.counts.clear()
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=count(12, 500), stateful_step_count=count(40, 80), deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate, *([Phase.shrink] if count(0, 1) else [])],
        ),
    )  # fmt: skip
    print(", ".join(f"{number} {what}" for what, number in sorted(Model.counts.items())))
