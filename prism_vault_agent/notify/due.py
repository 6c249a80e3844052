"""When a consumer is to be told that files changed: from its limits, what became of it so far, and the time. Pure.

Times are seconds since 1970, because they outlive the process and windows are times of the day. With :func:`corrected` a clock
that was set back delays by no more than the limits themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from prism_vault_agent.notify.window import Window, opens

if TYPE_CHECKING:
    from prism_vault_agent.scope import Limits, Notify

HOUR: Final = 3600.0
PAUSE_FIRST: Final = 10.0
PAUSE_LONGEST: Final = 300.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with one consumer. ``told`` is the state of the files (any text) that it knows.

    ``since`` is when they were first seen to be otherwise, None where they are not; ``delay`` the random part of its wait in
    seconds; ``begun`` the attempts of the last hour, in order; ``failures`` how many failed in a row, ``error`` why the last did;
    ``note`` why there was nobody to tell, last time.
    """

    told: str
    since: float | None = None
    delay: float = 0.0
    begun: tuple[float, ...] = ()
    failures: int = 0
    error: str = ""
    note: str = ""


def seen(standing: Standing, files: str, now: float, delay: float) -> Standing:
    """Note how the files are now. Any number of changes that it was not told of are one, which waits from the first on."""
    if files == standing.told:
        return replace(standing, since=None, failures=0, error="") if standing.since is not None else standing
    return standing if standing.since is not None else replace(standing, since=now, delay=delay)


def corrected(standing: Standing, now: float) -> Standing:
    """Return it for a clock that was set back: what would have been later than now was now."""
    if max((*standing.begun, standing.since or now)) <= now:
        return standing
    since = None if standing.since is None else min(standing.since, now)
    return replace(standing, since=since, begun=tuple(min(each, now) for each in standing.begun))


def due(notify: Notify | Limits, standing: Standing, now: float) -> float | None:
    """Return when it is to be told within these limits, not before ``now``; None where it knows the files as they are.

    Never less than ``min_interval`` after the attempt before, never more than ``max_per_hour`` attempts in any hour, never
    outside of the windows. Who waits for a window is told some time into it, so that a fleet does not act at one moment.
    """
    if standing.since is None:
        return None
    delay = min(standing.delay, notify.splay)
    begun = standing.begun
    first = standing.since + delay
    if begun:
        first = max(first, begun[-1] + max(notify.min_interval, _pause(standing.failures)))
    if len(begun) >= notify.max_per_hour:
        first = max(first, begun[-notify.max_per_hour] + HOUR)
    windows = [Window.parse(text) for text in notify.windows]
    planned = opens(windows, first)
    if planned > first and opens(windows, planned + delay) == planned + delay:
        planned += delay
    return planned if planned >= now else opens(windows, now)


def begin(standing: Standing, now: float) -> Standing:
    """Note that an attempt begins: it counts, whatever becomes of it."""
    return replace(standing, begun=(*(each for each in standing.begun if each > now - HOUR), now))


def succeeded(standing: Standing, files: str, note: str = "") -> Standing:
    """Note that it was told of the files as they were when the attempt began; a change since then is another one."""
    return replace(standing, told=files, since=None, failures=0, error="", note=note)


def failed(standing: Standing, why: str) -> Standing:
    """Note that an attempt failed: it is tried again, ever less often."""
    return replace(standing, failures=standing.failures + 1, error=why)


def _pause(failures: int) -> float:
    return min(PAUSE_FIRST * 2.0 ** min(failures - 1, 10), PAUSE_LONGEST) if failures else 0.0
