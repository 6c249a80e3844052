"""When a command is started again, and after how long: the decision alone."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.exec.restarting import FIRST, JITTER, LONGEST, Restarts, failed

FAILED = 3 << 8


@pytest.mark.parametrize(
    ("status", "is_failure"),
    [
        (0, False),
        (1 << 8, True),
        (255 << 8, True),
        (signal.SIGTERM, False),
        (signal.SIGINT, False),
        (signal.SIGHUP, False),
        (signal.SIGPIPE, False),
        (signal.SIGKILL, True),
        (signal.SIGSEGV, True),
        (signal.SIGSEGV | 0x80, True),
    ],
)
def test_what_a_failure_is(status, is_failure):
    """Any status but 0 is a failure, and any signal but those that ask to end or tell that nobody reads."""
    assert failed(status) == is_failure


@pytest.mark.parametrize(("policy", "after_failure", "after_success"), [("no", 0, 0), ("on-failure", 1, 0), ("always", 1, 1)])
def test_policies(policy, after_failure, after_success):
    """With no nothing is started again, with on-failure what failed, with always everything."""
    assert (Restarts(policy, 5, 60).after(FAILED, 1, 0, 0.5) is not None) == bool(after_failure)
    assert (Restarts(policy, 5, 60).after(0, 1, 0, 0.5) is not None) == bool(after_success)


def test_pauses_double_up_to_a_bound_and_begin_anew():
    """Pauses in a row double up to a minute; a run as long as restarts are counted begins them anew."""
    restarts = Restarts("always", 1_000, 60)
    pauses = [restarts.after(0, 1, at * 0.001, 0.5) for at in range(12)]
    assert pauses == [min(FIRST * 2**turn, LONGEST) for turn in range(12)]
    assert restarts.after(0, 60, 100, 0.5) == FIRST
    assert restarts.after(0, 59, 200, 0.5) == 2 * FIRST


@given(st.floats(0, 1))
def test_jitter(chance):
    """A pause is its due more or less a quarter."""
    pause = Restarts("always", 5, 60).after(0, 1, 0, chance)
    assert pause is not None
    assert FIRST * (1 - JITTER) <= pause <= FIRST * (1 + JITTER)


@given(st.integers(0, 6), st.lists(st.floats(0.001, 40), max_size=40))
def test_never_more_than_the_limit(most, gaps):
    """In no time as long as the limit's are there more restarts than it allows; beyond it is given up."""
    restarts, now, started = Restarts("on-failure", most, 60), 0.0, []
    for gap in gaps:
        now += gap
        if restarts.after(FAILED, gap, now, 0.5) is None:
            assert restarts.gave_up
            break
        started.append(now)
    assert all(sum(at - 60 < other <= at for other in started) <= most for at in started)


def test_what_cannot_be_started_is_tried_again_without_end():
    """Pauses until a start is possible double up to half a minute and count for no limit; a start begins them anew."""
    restarts = Restarts("no", 0, 60)
    assert [restarts.until_started(0.5) for _ in range(20)] == [min(FIRST * 2**turn, LONGEST / 2) for turn in range(20)]
    restarts.started()
    assert restarts.until_started(0.5) == FIRST
