"""By which means a run's tree is found and ended on this host. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Means(enum.Enum):
    """From what catches all to what catches most; the text is what a person is told."""

    GROUP = "a control group of its own"
    HELPED = "a control group of its own, made by the helper"
    PLACE = "the control group that it has to itself"
    DESCENDANTS = "its descendants, as far as they can be told"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the control group in which a process is.

    ``seen``: its directory is mounted here. ``divisible``: we may make a group below it and put its processes there.
    ``alone``: no other process is in it, and it is not the one of all processes that are in no other; asked where not divisible.
    ``helped``: the helper may be asked to make one.
    """

    seen: bool
    divisible: bool
    alone: bool
    helped: bool = False


def choose(facts: Facts) -> Means:
    """Return the best means that the facts allow."""
    if facts.seen and facts.divisible:
        return Means.GROUP
    if facts.seen and facts.alone:
        return Means.PLACE
    return Means.HELPED if facts.seen and facts.helped else Means.DESCENDANTS
