"""Maintenance windows: when the next one is open, against a look at every minute."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.notify.window import DAYS, Window, opens
from tests.support.soak import count

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMES = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))
NAMES = st.sampled_from(DAYS)
PARTS = NAMES | st.builds(lambda first, last: f"{first}..{last}", NAMES, NAMES)
SPANS = st.tuples(TIMES, TIMES | st.just("24:00")).filter(lambda pair: pair[0] != pair[1]).map("-".join)
WINDOWS = SPANS | st.builds(lambda parts, span: f"{','.join(parts)} {span}", st.lists(PARTS, min_size=1, max_size=3), SPANS)
MOMENTS = st.integers(1_790_000_000, 1_790_000_000 + 30 * 86400).map(float)


@pytest.fixture
def vienna(monkeypatch) -> Iterator[None]:
    """Clocks of a place that changes them twice a year."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Europe/Vienna")
        time.tzset()
        yield
    time.tzset()


def inside(text: str, at: float) -> bool:
    """Tell whether a moment is in a window, by its name of the day and its time of the day alone."""
    days, _, span = text.rpartition(" ")
    start, end = span.split("-")
    moment = datetime.fromtimestamp(at)  # noqa: DTZ006 - the host's own time is what is meant
    clock, yesterday = moment.strftime("%H:%M"), moment - timedelta(days=1)
    named = set()
    for part in days.split(",") if days else ["Mon..Sun"]:
        first, dots, last = part.partition("..")
        name = first
        named.add(name)
        while dots and name != last:
            name = DAYS[(DAYS.index(name) + 1) % 7]
            named.add(name)
    today_in = DAYS[moment.weekday()] in named
    if start < end:
        return today_in and start <= clock < end
    return (today_in and clock >= start) or (DAYS[yesterday.weekday()] in named and clock < end)


@settings(max_examples=count(100, 3000), deadline=None)
@given(st.lists(WINDOWS, min_size=1, max_size=3), MOMENTS)
def test_the_next_open_moment_is_in_a_window_and_none_is_before_it(texts: list[str], at: float):
    """The moment is not in the past, is in one of the windows, and no minute between is."""
    found = opens([Window.parse(text) for text in texts], at)
    assert found >= at
    assert any(inside(text, found) for text in texts)
    minutes = range(int(at), int(found), 60)
    assert not any(inside(text, float(minute)) for minute in minutes for text in texts)


def test_without_windows_it_is_always_open():
    """No window is no bound."""
    assert opens([], 1_790_000_000.5) == 1_790_000_000.5


@pytest.mark.parametrize(
    ("window", "at", "expected"),
    [
        ("02:00-04:00", "2026-11-26T01:59:59", "2026-11-26T02:00:00"),
        ("02:00-04:00", "2026-11-26T03:59:59", "2026-11-26T03:59:59"),
        ("02:00-04:00", "2026-11-26T04:00:00", "2026-11-27T02:00:00"),
        ("Sat 22:00-02:00", "2026-11-29T01:00:00", "2026-11-29T01:00:00"),
        ("Sat 22:00-02:00", "2026-11-29T02:00:00", "2026-12-05T22:00:00"),
        ("Fri..Mon 00:00-24:00", "2026-11-24T12:00:00", "2026-11-27T00:00:00"),
        # 2026-03-29: the clock goes from 02:00 to 03:00; 2026-10-25: from 03:00 back to 02:00.
        ("Sun 02:00-03:00", "2026-03-28T12:00:00", "2026-04-05T02:00:00"),
        ("01:00-02:30", "2026-03-29T00:00:00", "2026-03-29T01:00:00"),
        ("02:30-04:00", "2026-10-25T00:00:00", "2026-10-25T02:30:00"),
    ],
)
def test_edges_nights_and_changed_clocks(vienna, window, at, expected):
    """A window holds from its start to before its end, over midnight; one that a change of clocks skips comes the week after."""
    moment = datetime.fromisoformat(at).timestamp()
    assert datetime.fromtimestamp(opens([Window.parse(window)], moment)).isoformat() == expected  # noqa: DTZ006 - as above
