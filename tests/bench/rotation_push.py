"""How soon after an operator's rotation one host asks the provider: against when a bare reader of the stream has the signal.

``python -m tests.bench.rotation_push [ROUNDS]``, by default 30.
"""

from __future__ import annotations

import statistics
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.support.signalled import order, signalled, started
from tests.support.stream import Following
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.fault_proxy import Seen
    from tests.support.stack import Stack

GOAL_MS = 200


def main(rounds: int) -> None:
    """Measure and print."""
    asked: list[float] = []
    heard: list[float] = []
    with signalled() as made, Following(made.central) as bare:
        child = started(made.agent, "measured")
        for _ in range(rounds):
            events, requests = len(bare.events), len(made.to_openbao.seen)
            began = time.monotonic()
            order(made.central, "rotations", scope="web")
            bare.wait_for(events + 1)
            heard.append(time.monotonic() - began)
            asked += [seen.at - began for seen in wait_until(partial(_questions, made, requests))[:1]]
        child.kill()
        child.communicate()
    told, pushed = (statistics.median(each) * 1000 for each in (heard, asked))
    print(f"rotation to a bare reader: {told:.0f} ms in the median of {rounds}")
    print(f"rotation to the first question at the provider: {pushed:.0f} ms ({max(asked) * 1000:.0f} at most), goal {GOAL_MS} ms")
    print(f"ratio: {pushed / told:.1f}")


def _questions(made: Stack, since: int) -> list[Seen]:
    """Return the questions about versions behind so many requests to the provider."""
    return [seen for seen in made.to_openbao.seen[since:] if "/metadata/" in seen.path]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
