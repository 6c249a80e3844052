"""What stays in memory, and what idling costs: ``python -m tests.bench.resident [SECONDS] [EXECS]`` (root, or your own agents).

Memory of the agent's processes and of OpenBao's agent beside it, copies of the secret in each, and processor time while idle.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from tests.agent.asking import children, eventually, pid_of
from tests.bench.stand import KEYS, Stand, cpu_seconds, once, stand
from tests.support.agent import LAUNCHER
from tests.support.memory import copies, footprint

SCOPES = 1000


def main() -> None:
    """Run and print the table and the goals."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    execs = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    many = {f"scope-{n}": {f"NAME_{k}": f"vault://secret/s{n}#k{k}" for k in range(KEYS)} for n in range(SCOPES - 1)}
    with stand(many) as here:
        command = [LAUNCHER, "exec", "--scope", "bench", "--timeout", "60s", "--", "/bin/true"]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: once(command, here.environment()), range(execs)))
        supervisor = subprocess.Popen(here.bao_agent("/bin/sleep", "3600"), env=here.environment(), stdin=subprocess.DEVNULL)
        try:
            eventually(lambda: any("sleep" in line for line in children(supervisor.pid).values()), 60)
            tell(here, {**processes(here), "bao agent (1 exec)": supervisor.pid}, seconds, execs)
        finally:
            supervisor.terminate()
            supervisor.wait(60)


def processes(here: Stand) -> dict[str, int]:
    """Return the processes of ours that stay, by name."""
    eventually(lambda: here.agent.status()["workers"]["idle"] == 4)
    assert here.central.process is not None
    found = {"prism-vault agent (front)": pid_of(here.agent)}
    for number, (pid, line) in enumerate(sorted(children(pid_of(here.agent)).items())):
        found[f"{line.replace('prism-vault agent: ', '')} {number or ''}".strip()] = pid
    return {**found, "central": here.central.process.pid}


def tell(here: Stand, found: Mapping[str, int], seconds: float, execs: int) -> None:
    """Print the table of processes and the goals."""
    value = next(iter(values(here)))
    before = {name: cpu_seconds(pid) for name, pid in found.items()}
    time.sleep(seconds)
    print(f"after {execs} execs, 16 at a time; {SCOPES} scopes; KiB; processor time of {seconds:.0f} s idle")
    print(f"{'':28}{'RSS':>9}{'PSS':>9}{'USS':>9}{'copies':>8}{'idle ms':>9}")
    for name, pid in found.items():
        size = footprint(pid)
        idle = (cpu_seconds(pid) - before[name]) * 1000
        print(f"{name:28}{size.rss:9}{size.pss:9}{size.uss:9}{copies(pid, value):8}{idle:9.0f}")
    front = footprint(found["prism-vault agent (front)"]).rss / 1024
    ours = sum(copies(pid, value) for name, pid in found.items() if not name.startswith("bao agent"))
    print(f"\nfront: {front:.1f} MB resident (goal: below 60)")
    print(f"copies of one value in our long-lived processes: {ours} (goal: 0)")


def values(here: Stand) -> Iterator[str]:
    """Return the values of the secret ``bench``."""
    answer = here.openbao.must("GET", "secret/data/bench")
    yield from answer["data"]["data"].values()


if __name__ == "__main__":
    main()
