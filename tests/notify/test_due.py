"""When a consumer is told, over any history of changes, failures and restarts: within its limits, and nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.notify.due import (
    HOUR,
    PAUSE_FIRST,
    PAUSE_LONGEST,
    Standing,
    begin,
    corrected,
    due,
    failed,
    seen,
    succeeded,
)
from prism_vault_agent.notify.window import Window, opens
from prism_vault_agent.scope import Notify
from tests.support.soak import count

START = 1_790_000_000.0
LIMITS = st.builds(
    Notify,
    kind=st.just("unit"),
    target=st.just(("web.service",)),
    how=st.just("restart"),
    files=st.just(("f",)),
    splay=st.sampled_from([0.0, 1.0, 600.0]),
    min_interval=st.sampled_from([0.0, 1.0, 10.0, 900.0, 3600.0]),
    windows=st.lists(st.sampled_from(["02:00-04:00", "Mon..Fri 22:00-02:00", "Sun 12:00-12:01", "00:00-24:00"]), max_size=2).map(
        tuple
    ),
    max_per_hour=st.integers(1, 6),
    timeout=st.just(60.0),
)
# How long after the step before: something changes, how long an attempt takes, and whether it fails.
STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 30.0, 1800.0, 90_000.0]), st.sampled_from([0.0, 2.0, 60.0]), st.booleans()),
    min_size=1,
    max_size=12,
)


@dataclass
class Simulation:
    """One consumer on a clock of its own. ``told`` are the attempts: when, of which change, and whether it failed."""

    notify: Notify
    fraction: float
    now: float = START
    number: int = 0
    standing: Standing = field(default_factory=lambda: Standing("0"))
    told: list[tuple[float, int, bool]] = field(default_factory=list)

    def look(self) -> float | None:
        """See how the files are, and return when the consumer is due."""
        self.standing = corrected(self.standing, self.now)
        self.standing = seen(self.standing, str(self.number), self.now, self.notify.splay * self.fraction)
        return due(self.notify, self.standing, self.now)

    def tell(self, *, takes: float, fails: bool, meanwhile: bool = False) -> None:
        """Make one attempt; ``meanwhile`` the files change."""
        self.standing, number = begin(self.standing, self.now), self.number
        self.told.append((self.now, number, fails))
        self.number += meanwhile
        self.look()
        self.now += takes
        self.standing = failed(self.standing, "no") if fails else succeeded(self.standing, str(number))

    def settle(self, until: float, steps: list[tuple[float, bool]]) -> None:
        """Make every attempt that is due before ``until``, each as the next of ``steps`` says; then successfully."""
        while (at := self.look()) is not None and at <= until:
            self.now = at
            takes, fails = steps.pop(0) if steps else (0.0, False)
            self.tell(takes=takes, fails=fails, meanwhile=False)
        self.now = max(self.now, until)


@settings(max_examples=count(200, 10_000), deadline=None)
@given(LIMITS, STEPS, st.floats(0, 1))
def test_within_the_limits_and_nothing_is_lost(notify: Notify, steps: list[tuple[float, float, bool]], fraction: float):
    """Never too often, too soon or outside of the windows; the newest change is told in the end, once, and nothing after it."""
    world = Simulation(notify, fraction)
    attempts = [(takes, fails) for _, takes, fails in steps]
    for pause, _, _ in steps:
        world.settle(world.now + pause, attempts)
        world.number += 1
    # Who may only be told in a minute of each week, and fails each time, needs as many weeks.
    world.settle(world.now + (60 + 7 * len(steps)) * 86400, attempts)

    moments = [at for at, _, _ in world.told]
    assert all(later - sooner >= notify.min_interval for sooner, later in pairwise(moments))
    assert all(later - sooner >= HOUR for sooner, later in zip(moments, moments[notify.max_per_hour :], strict=False)), (
        "in any hour"
    )
    windows = [Window.parse(text) for text in notify.windows]
    assert all(opens(windows, at) == at for at in moments)
    succeeded_of = [number for _, number, fails in world.told if not fails]
    assert succeeded_of[-1] == world.number, "the newest is told"
    assert succeeded_of == sorted(set(succeeded_of)), "and each at most once"
    assert world.look() is None


@settings(max_examples=count(100, 5000), deadline=None)
@given(LIMITS, st.integers(2, 50), st.floats(0, 1))
def test_changes_that_come_together_are_told_once(notify: Notify, changes: int, fraction: float):
    """Any number of changes before the consumer is told are one attempt, of the newest, and the first one sets the time."""
    world = Simulation(notify, fraction)
    world.number = 1
    first = world.look()
    assert first is not None
    for world.number in range(2, changes + 1):
        world.now += (first - world.now) / 2
        assert world.look() == first
    world.settle(world.now + 20 * 86400, [])
    assert [number for _, number, _ in world.told] == [changes]


@given(st.sampled_from([0.0, 5.0]))
def test_a_change_while_it_is_being_told_is_told_after(takes: float):
    """What changes during an attempt is another change: it is not taken as told."""
    world = Simulation(Notify("unit", ("web.service",), "restart", ("f",), min_interval=0.0), 0.0)
    world.number = 1
    assert world.look() == world.now
    world.tell(takes=takes, fails=False, meanwhile=True)
    world.settle(world.now + 1, [])
    assert [number for _, number, _ in world.told] == [1, 2]


def test_what_fails_is_tried_ever_less_often():
    """Attempts that fail follow each other after 10 s, twice that, and so on to five minutes; one that works ends that."""
    world = Simulation(Notify("unit", ("web.service",), "restart", ("f",), min_interval=0.0, max_per_hour=3600), 0.0)
    world.number = 1
    world.settle(START + 3000, [(0.0, True)] * 8)
    moments = [at for at, _, _ in world.told]
    pauses = [later - sooner for sooner, later in pairwise(moments)]
    assert pauses == [min(PAUSE_FIRST * 2**n, PAUSE_LONGEST) for n in range(8)]
    world.number = 2
    assert world.look() == world.now


@pytest.mark.parametrize("back", [10.0, 86400.0, 10 * 365 * 86400.0])
def test_a_clock_that_is_set_back_holds_nobody_up(back):
    """However far the clock is set back, the wait is no longer than the limits themselves ask for."""
    notify = Notify("unit", ("web.service",), "restart", ("f",), min_interval=60.0, max_per_hour=2)
    world = Simulation(notify, 0.0)
    for number in (1, 2):
        world.number = number
        world.settle(world.now + 100, [])
    world.number = 3
    world.look()
    world.now -= back
    world.settle(world.now + HOUR, [])
    assert [number for _, number, _ in world.told] == [1, 2, 3]


def test_splay_counts_into_a_window():
    """Who waits for a window is told the random part of its wait into it, or at its start where that would miss it."""
    opened = opens([Window.parse("02:00-04:00")], START)
    assert opened > START, "it is closed when the change comes"
    limits = {"windows": ("02:00-04:00",), "splay": 600.0}
    notify = Notify("unit", ("web.service",), "restart", ("f",), **limits)  # type: ignore[arg-type]
    assert due(notify, Standing("0", since=START, delay=600.0), START) == opened + 600
    short = replace(notify, windows=("02:00-02:05",))
    assert due(short, Standing("0", since=START, delay=600.0), START) == opened
    assert due(notify, Standing("0", since=START, delay=600.0), opened + 900) == opened + 900
