"""The one script, with adapters in memory that fail, lie or are cancelled at every step (F19-F25, G1-G3)."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.errors import AuditUnavailable, Denied, PrismVaultError, ProviderUnavailable, SecretNotFound
from prism_vault_agent.model import Caller, Grant, Receipt, Render, Request, Reservation, ReservationId, Resolution
from prism_vault_agent.render import render, run_blocking
from prism_vault_agent.scope import Binding, CallerRule, Purpose, Scope, ScopeName, SecretReference

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from prism_vault_agent.policy.decide import Denial

WEB = ScopeName("web")
SCOPE = Scope(
    WEB,
    "prism",
    "test",
    (Purpose("test"),),
    (CallerRule("operator", uid=7),),
    (Binding("A", SecretReference("secret/web", "a")),),
)
CALLER = Caller(1, 7, 7, frozenset(), "/bin/true", 1)

# How one call of an adapter goes: it works; it fails at once, or after it has had its effect; or whoever renders is
# cancelled at the call's own await, before or after the effect.
WAYS = ("works", "fails", "fails-late", "cancelled", "cancelled-late")
STEPS = ("reserve", "resolve", "check", "succeed", "deliver")
ERRORS: tuple[BaseException, ...] = (
    Denied("no", reason="provider_policy"),
    AuditUnavailable("away"),
    ProviderUnavailable("sealed", reason="sealed"),
    SecretNotFound("gone", reason="deleted"),
    PrismVaultError("a defect"),
    ValueError("a defect that nobody typed"),
)


@dataclass
class World:
    """All adapters of one render, and what happened, in order. ``plan`` says how each step goes."""

    plan: dict[str, str] = field(default_factory=dict)
    error: BaseException = field(default_factory=lambda: ProviderUnavailable("x"))
    suspends: bool = True
    happened: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    held: bool = False
    told: list[BaseException] = field(default_factory=list)
    now: asyncio.Event = field(default_factory=asyncio.Event)

    async def _go(self, step: str, effect: str) -> None:
        way = self.plan.get(step, "works")
        self.happened.append(step)
        if way == "fails":
            raise self.error
        if way == "cancelled":
            self.now.set()
            await asyncio.sleep(3600)
        if effect:
            self.log.append(effect)
        if step == "resolve":
            self.held = True
        if step == "deliver":
            self.happened.append("released")
            self.held = False
        if self.suspends:
            await asyncio.sleep(0)
        if way == "fails-late":
            raise self.error
        if way == "cancelled-late":
            self.now.set()
            await asyncio.sleep(3600)

    async def reserve(self, grant: Grant) -> Reservation:
        """The log takes the intent."""
        await self._go("reserve", "reserved")
        return Reservation(ReservationId("1"), "pva_1", grant)

    async def resolve(self, reservation: Reservation) -> Resolution:
        """The provider is read."""
        try:
            await self._go("resolve", "")
        except BaseException:
            self.held = False  # a provider that fails keeps nothing
            raise
        return Resolution(reservation, ("A",), (), object())

    def check(self) -> None:
        """The receiver is looked at; there is nothing to await here."""
        way = self.plan.get("check", "works")
        self.happened.append("check")
        if way != "works":
            raise self.error

    async def succeed(self, resolution: Resolution) -> Receipt:
        """The log takes the success."""
        await self._go("succeed", "success")
        return Receipt(resolution, 2)

    async def deliver(self, receipt: Receipt) -> Render:
        """The values are released."""
        await self._go("deliver", "")
        return Render(receipt.resolution.reservation, receipt.resolution.names, ())

    def drop(self, _resolution: Resolution) -> None:
        """The values are forgotten."""
        self.happened.append("drop")
        self.held = False

    def fail(self, _reservation: Reservation, error: BaseException) -> None:
        """The log learns of a failure."""
        self.happened.append("fail")
        self.told.append(error)
        # Central's own rule: the first row that ends a reservation stands, and a late failure takes a success back.
        self.log.append("cleared" if "success" in self.log else "failure")

    def deny(self, _caller: Caller, _request: Request, denial: Denial) -> str:
        """The log learns of a denial."""
        self.log.append(f"denied {denial.rule}")
        return "pva_denied"

    def clear(self, _reservation: Reservation, reason: str) -> None:
        """The log learns that a release is taken back."""
        self.log.append("cleared")
        assert reason == "not_delivered"

    def script(self, *scopes: ScopeName) -> Coroutine[object, object, Render]:
        """Return the script over these adapters."""
        return render({WEB: SCOPE}, CALLER, Request(scopes or (WEB,)), audit=self, provider=self, sink=self)

    async def run(self) -> BaseException | Render:
        """Run the script, cancelling it where the plan says so, and return its result or what it raised."""
        task = asyncio.create_task(self.script())
        waiting = asyncio.create_task(self.now.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        waiting.cancel()
        try:
            return await task
        except (Exception, asyncio.CancelledError) as error:
            return error

    def verify(self, result: BaseException | Render) -> None:
        """Check every promise of the script on what happened."""
        released = "released" in self.happened
        # G1: released only behind a success. G2: read only behind a reservation. Never twice.
        if released:
            assert self.log[:2] == ["reserved", "success"]
        if "resolve" in self.happened:
            assert self.log[0] == "reserved"
        assert len(self.happened) == len(set(self.happened))
        # G3: one end for a reservation that the script holds, and none for one that it does not.
        assert self.log.count("failure") + self.log.count("success") <= 1
        if "resolve" in self.happened:
            assert self.log.count("failure") + self.log.count("success") == 1
        else:
            assert self.log in ([], ["reserved"])  # the latter is central's to abandon
        # A render that failed leaves nothing out there and nothing in hand, and the log says so.
        if not isinstance(result, Render):
            assert not self.held
            assert "success" not in self.log or self.log[-1] == "cleared"
        else:
            assert released
            assert self.log == ["reserved", "success"]


def _first_failure(plan: dict[str, str]) -> str:
    """Return the first step that does not work, or nothing."""
    return next((step for step in STEPS if plan.get(step, "works") != "works"), "")


def _check(plan: dict[str, str], error: BaseException, run: Callable[..., BaseException | Render] = asyncio.run) -> None:
    """Run one plan and check all promises, and that what was raised is what happened."""
    world = World(plan, error)
    result = run(world.run())
    world.verify(result)
    step = _first_failure(plan)
    if not step:
        assert isinstance(result, Render)
    elif plan[step].startswith("cancelled") and step != "check":
        assert isinstance(result, asyncio.CancelledError)
    else:
        assert result is error
    assert world.happened[-1] in ("deliver", "released") or step, "the script went to its end"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("step", "way"), list(itertools.product(STEPS, WAYS)))
def test_f19_to_f25_one_fault_at_any_step_never_breaks_the_order(step: str, way: str, error: BaseException) -> None:
    """Whatever one step does, nothing is released without its success, nor read without its reservation; each has one end."""
    _check({step: way}, error)


@given(st.fixed_dictionaries({step: st.sampled_from(WAYS) for step in STEPS}), st.sampled_from(ERRORS))
def test_any_combination_of_faults_never_breaks_the_order(plan: dict[str, str], error: BaseException) -> None:
    """The same holds for every combination of faults at all steps."""
    _check(plan, error)


def test_all_combinations_of_working_and_failing_steps() -> None:
    """The same holds, exhaustively, for all 3,125 ways in which the five steps can go."""
    with asyncio.Runner() as runner:
        for ways in itertools.product(WAYS, repeat=len(STEPS)):
            _check(dict(zip(STEPS, ways, strict=True)), ERRORS[2], runner.run)


def test_a_denial_reserves_and_reads_nothing_and_is_recorded() -> None:
    """A request that policy denies is recorded once, asks neither for a reservation nor the provider, and tells its audit id."""
    world = World()
    with pytest.raises(Denied) as raised:
        asyncio.run(_awaited(world.script(ScopeName("other"))))
    assert raised.value.audit_id == "pva_denied"
    assert raised.value.reason == "unknown_scope"
    assert (world.happened, world.log) == ([], ["denied unknown_scope"])


@pytest.mark.parametrize("step", ["resolve", "succeed", "deliver"])
def test_a_typed_error_tells_the_audit_id_and_the_scope(step: str) -> None:
    """Whoever sees the error of a reserved render can look its record up."""
    error = ProviderUnavailable("sealed", reason="sealed")
    with pytest.raises(ProviderUnavailable) as raised:
        asyncio.run(_awaited(World({step: "fails"}, error).script()))
    assert raised.value.line() == "scope web: sealed (pva_1)"


def test_an_intent_that_was_not_taken_tells_its_scope() -> None:
    """Where there is no reservation there is no audit id; the error says for which scope it is all the same."""
    with pytest.raises(AuditUnavailable) as raised:
        asyncio.run(_awaited(World({"reserve": "fails"}, AuditUnavailable("away")).script()))
    assert raised.value.line() == "scope web: away"


def test_a_failure_is_told_to_the_log_as_it_was_raised() -> None:
    """The log learns the very error that ended the render, so its row has the error's reason."""
    error = Denied("no", reason="provider_policy")
    world = World({"resolve": "fails"}, error)
    asyncio.run(world.run())
    assert world.told == [error]


def test_a_second_cancellation_does_not_skip_the_record() -> None:
    """A render that is cancelled while it fails has recorded its end all the same: recording never waits."""
    world = World({"succeed": "cancelled-late"})

    async def twice() -> None:
        task = asyncio.create_task(world.script())
        await world.now.wait()
        task.cancel()
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(twice())
    assert world.log == ["reserved", "success", "cleared"]
    assert not world.held


@pytest.mark.parametrize(("step", "way"), list(itertools.product(STEPS, ("works", "fails", "fails-late"))))
def test_run_blocking_runs_the_same_script_without_a_loop(step: str, way: str) -> None:
    """With adapters that never suspend the script runs to the same end without an event loop."""
    error = ProviderUnavailable("x")
    world = World({step: way}, error, suspends=False)
    result: BaseException | Render
    try:
        result = run_blocking(world.script())
    except ProviderUnavailable as raised:
        result = raised
    world.verify(result)
    assert isinstance(result, Render) if way == "works" else result is error


def test_run_blocking_refuses_an_adapter_that_suspends() -> None:
    """An adapter that would need a loop is a defect, told as one; the script is closed, so its failure is recorded."""
    world = World()
    with pytest.raises(AssertionError, match="suspended"):
        run_blocking(world.script())
    assert "released" not in world.happened


async def _awaited(script: Coroutine[object, object, Render]) -> Render:
    return await script
