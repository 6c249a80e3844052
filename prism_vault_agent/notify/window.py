"""Maintenance windows: ``02:00-04:00``, ``Mon..Fri 22:00-02:00``, ``Sat,Sun 00:00-24:00``. Pure, but for the host's time zone.

Days are written as in systemd.time(7). A window whose end is not behind its start ends on the day after, and belongs to the day
on which it starts. Times are the host's own; a window that a change of clocks skips does not come on that day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WINDOW: Final = re.compile(r"(?:(?P<days>[A-Za-z.,]+) )?(?P<from>[0-9]{2}:[0-9]{2})-(?P<to>[0-9]{2}:[0-9]{2})")
_DAY_MINUTES: Final = 24 * 60
# A weekly window may fall on the one night in which it is skipped: the next one is a week later.
_FARTHEST: Final = 16


@dataclass(frozen=True, slots=True)
class Window:
    """On ``days`` (0 is Monday), from minute ``start`` of the day to before minute ``end``, which may be on the next day."""

    days: frozenset[int]
    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """Return the window that ``text`` spells, or raise ``ValueError`` that says what is expected."""
        match = _WINDOW.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            start, end = _minute(match["from"]), _minute(match["to"])
            days = _days(match["days"]) if match["days"] else frozenset(range(7))
            if start in (end, _DAY_MINUTES):
                raise ValueError
        except ValueError:
            expected = 'is not a window; write for instance "02:00-04:00", "Mon..Fri 22:00-02:00" or "Sat,Sun 00:00-24:00"'
            raise ValueError(expected) from None
        return cls(days, start, end if end > start else end + _DAY_MINUTES)


def opens(windows: Iterable[Window], at: float) -> float:
    """Return the first moment from ``at`` on (seconds since 1970) that is in a window; ``at`` itself where there are none."""
    found = [moment for window in windows if (moment := _first(window, at)) is not None]
    return min(found, default=at)


def _first(window: Window, at: float) -> float | None:
    midnight = datetime.fromtimestamp(at).replace(hour=0, minute=0, second=0, microsecond=0)  # noqa: DTZ006 - local, as said
    for days in range(-1, _FARTHEST):
        day = midnight + timedelta(days=days)
        if day.weekday() in window.days:
            start = (day + timedelta(minutes=window.start)).timestamp()
            end = (day + timedelta(minutes=window.end)).timestamp()
            if max(at, start) < end:
                return max(at, start)
    return None


def _minute(text: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    if minutes > 59 or hours * 60 + minutes > _DAY_MINUTES:
        raise ValueError
    return hours * 60 + minutes


def _days(text: str) -> frozenset[int]:
    """Return the days that a list of names and ranges means; a range may run over Sunday."""
    found: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        start = DAYS.index(first)
        length = (DAYS.index(last) - start) % 7 if dots else 0
        found |= {(start + offset) % 7 for offset in range(length + 1)}
    return frozenset(found)
