"""Many launches at once: ``python -m tests.bench.throughput [LAUNCHES] [AT_A_TIME]``.

The floor is an interpreter that only becomes the command, without even its site module. Each contender starts all of its
launches as one batch, three batches each, in turns. A launch fails where its command did not run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.bench.stand import HVAC_SCRIPT, PYTHON, percentile, stand
from tests.support.agent import LAUNCHER

FLOOR = "python -I -S -E execv (floor)"
INTERPRETER = "python -I -c pass"
WARM = "prism-vault exec (warm)"
HVAC = "hvac script (login and read)"
BATCHES = 3


class Batch:
    """What the launches of one contender took: milliseconds each, seconds for all, and how many failed."""

    def __init__(self) -> None:
        self.each: list[float] = []
        self.seconds = 0.0
        self.failures = 0

    @property
    def rate(self) -> float:
        """Launches a second."""
        return len(self.each) / self.seconds

    def run(self, command: list[str], environment: dict[str, str], launches: int, at_a_time: int) -> None:
        """Launch ``command`` so often, so many at a time."""

        def launch(_: int) -> tuple[float, bool]:
            begun = time.perf_counter()
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            return (time.perf_counter() - begun) * 1000, done.returncode == 0

        begun = time.perf_counter()
        with ThreadPoolExecutor(at_a_time) as pool:
            results = list(pool.map(launch, range(launches)))
        self.seconds += time.perf_counter() - begun
        self.each += [milliseconds for milliseconds, _ in results]
        self.failures += sum(not ran for _, ran in results)


def main() -> None:
    """Run and print the table and the goals."""
    launches = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    at_a_time = int(sys.argv[2]) if len(sys.argv) > 2 else 16
    with stand() as here:
        contenders = {
            FLOOR: ([PYTHON, "-I", "-S", "-E", "-c", "import posix; posix.execv('/bin/true', ['true'])"], launches),
            INTERPRETER: ([PYTHON, "-I", "-c", "pass"], launches),
            WARM: ([LAUNCHER, "exec", "--scope", "bench", "--timeout", "60s", "--", "/bin/true"], launches),
            HVAC: ([*here.script(HVAC_SCRIPT), "bench", "/bin/true"], launches // 4),
        }
        batches = {name: Batch() for name in contenders}
        for _ in range(BATCHES):
            for name, (command, count) in contenders.items():
                batches[name].run(command, here.environment(), count, at_a_time)
    print(f"{launches} launches, {at_a_time} at a time, {BATCHES} times")
    print(f"{'':34}{'a second':>9}{'p50 ms':>9}{'p99 ms':>9}{'launches':>10}{'failures':>10}")
    for name, batch in batches.items():
        middle, last = (percentile(batch.each, part) for part in (0.5, 0.99))
        print(f"{name:34}{batch.rate:9.1f}{middle:9.1f}{last:9.1f}{len(batch.each):10}{batch.failures:10}")
    print(f"\nfailures of warm exec: {batches[WARM].failures} (goal: 0)")
    ratios = {name: batches[WARM].rate / batches[name].rate for name in (INTERPRETER, FLOOR)}
    print(f"rate of warm exec / rate of {INTERPRETER}: {ratios[INTERPRETER]:.2f} (goal: at least 0.5)")
    print(f"rate of warm exec / rate of the floor: {ratios[FLOOR]:.2f}")


if __name__ == "__main__":
    main()
