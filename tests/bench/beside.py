"""prism-vault beside OpenBao's own agent, against one OpenBao: ``python -m tests.bench.beside [ROUNDS] [defaults]``.

How soon a consumer has a new value, by default in 10 rounds; then what each has left after a failure. OpenBao's agent has the
fastest settings that it takes; ``defaults`` measures it with its own too, which takes some minutes a round (3 rounds).
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
from functools import partial
from typing import TYPE_CHECKING

from tests.beside import failures
from tests.beside.contenders import GRACE, Ours, Theirs, place
from tests.beside.latency import push, reached, to_file
from tests.support.stream import Following

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.beside.contenders import Place
    from tests.beside.failures import Left

BARE, PUSHED = "a bare reader has central's order", "prism-vault, ordered by central"
POLLED, THEIRS = "prism-vault, poll of 1 s", "bao agent at its fastest"
GOALS = {PUSHED: "0.2 s, 0.3 s", POLLED: "1.3 s"}


def main() -> None:
    """Measure and print both tables."""
    rounds = next((int(word) for word in sys.argv[1:] if word.isdigit()), 10)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}\n")
    with place(watch=12.0) as at:
        latencies(at, rounds)
        if "defaults" in sys.argv:
            by_default(at)
        print(f"\n{'what is left: processes, files, after':42}{'as shipped':>16}{'strict':>16}{'bao agent':>16}")
        terminated, killed = (failures.agent_ended(at, number) for number in (signal.SIGTERM, signal.SIGKILL))
        for each in (
            failures.deleted(at),
            failures.cut_off(at),
            *(failures.ended(at, number) for number in (signal.SIGTERM, signal.SIGKILL)),
            *terminated,
            *killed,
        ):
            row(each)
        ours, theirs = failures.deaf(at), failures.deaf_peer(at)
        row(
            failures.Outcome("a command that ignores SIGTERM", ours, None, theirs, f"goal: the grace of {GRACE:.0f} s, and 0.5 s")
        )
        for each in failures.server_down(at):
            row(each)


def latencies(at: Place, rounds: int) -> None:
    """Measure and print how soon each has a new value."""
    found: dict[str, list[list[float]]] = {BARE: [], PUSHED: [], POLLED: [], THEIRS: []}
    with (
        Following(at.central) as bare, Ours(at, poll="60s") as pushed, Ours(at, poll="1s") as polled, Theirs(at) as theirs,
    ):  # fmt: skip
        for number in range(1, rounds + 1):
            heard, *there = reached(
                partial(push, at, pushed), lambda: len(bare.events) >= number, to_file(pushed), pushed.told  # noqa: B023 - of this turn
            )  # fmt: skip
            found[BARE].append([heard])
            found[PUSHED].append(there)
            found[POLLED].append(reached(polled.write, to_file(polled), polled.told))
            found[THEIRS].append(reached(theirs.write, to_file(theirs), theirs.told))
    print(f"{'from the write to':34}{'the file':>9}{'max':>7}{'the child':>11}{'max':>7}   goal")
    table(found)


def by_default(at: Place) -> None:
    """Measure and print OpenBao's agent with its own settings."""
    with Theirs(at, settings="") as theirs:
        table({"bao agent by default": [reached(theirs.write, to_file(theirs), theirs.told, patience=900.0) for _ in range(3)]})


def table(found: Mapping[str, list[list[float]]]) -> None:
    """Print medians and maxima, in seconds."""
    for name, each in found.items():
        columns = [f"{statistics.median(seconds):9.2f}{max(seconds):7.2f}" for seconds in zip(*each, strict=True)]
        print(f"{name:34}{'  '.join(columns):34}   {GOALS.get(name, '')}")
    if PUSHED in found:
        middle = {name: [statistics.median(seconds) for seconds in zip(*each, strict=True)] for name, each in found.items()}
        for number, what in enumerate(("file", "new child")):
            ratios = ", ".join(f"{middle[THEIRS][number] / middle[name][number]:.1f}" for name in (PUSHED, POLLED))
            print(f"bao agent takes so many times as long to the {what}: {ratios}")
        print(
            f"to the file we take so many times as long as a bare reader to the order: {middle[PUSHED][0] / middle[BARE][0]:.1f}"
        )


def row(of: failures.Outcome) -> None:
    """Print one failure."""
    cells = (told(each) if each else "the same" for each in (of.shipped, of.strict, of.theirs))
    print(f"{of.failure:42}{''.join(f'{each:>16}' for each in cells)}{f'  ({of.note})' if of.note else ''}", flush=True)


def told(left: Left) -> str:
    """Return what is left as a cell."""
    return f"{left.processes}, {left.files}, {left.seconds:.2f} s"


if __name__ == "__main__":
    main()
