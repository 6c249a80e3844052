"""What a supervisor costs: ``python -m tests.bench.supervise [ROUNDS]``.

``exec`` and ``exec --supervise`` with an agent that answers at once, against the interpreter's start, tini (where it is
installed) and a shell that waits; then the memory that stays beside a running command.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.stand import PYTHON, interleaved, table
from tests.exec.fake_agent import FakeAgent, answer
from tests.supervise.supervised import children, start
from tests.support.agent import LAUNCHER
from tests.support.memory import footprint

INTERPRETER = "python -I -S -E -c pass"
PLAIN = "prism-vault exec"
SUPERVISED = "prism-vault exec --supervise"
TINI = "tini -s"
SHELL = "sh -c '...; exit'"
TRUE = "/bin/true"


def main() -> None:
    """Run and print the table and the memory."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with tempfile.TemporaryDirectory() as directory, FakeAgent(Path(directory), answer({b"DB": b"canary"})) as agent:
        asked = [LAUNCHER, "exec", "--socket", agent.path, "--scope", "bench"]
        contenders = {
            INTERPRETER: ([PYTHON, "-I", "-S", "-E", "-c", "pass"], rounds),
            PLAIN: ([*asked, "--", TRUE], rounds),
            SUPERVISED: ([*asked, "--supervise", "--", TRUE], rounds),
            TRUE: ([TRUE], rounds),
            SHELL: (["sh", "-c", f"{TRUE}; exit"], rounds),
        }
        if tini := shutil.which("tini"):
            contenders[TINI] = ([tini, "-s", "--", TRUE], rounds)
        times = interleaved(contenders, {"PATH": "/usr/bin:/bin"}, rounds)
        table(times, INTERPRETER)
        middle = {name: statistics.median(each) for name, each in times.items()}
        print(f"\nsupervised - plain: {middle[SUPERVISED] - middle[PLAIN]:.1f} ms")
        print(f"supervised / plain: {middle[SUPERVISED] / middle[PLAIN]:.2f}")
        for name in (TINI, SHELL):
            if name in middle:
                print(f"{name} - {TRUE}: {middle[name] - middle[TRUE]:.1f} ms")
        with start(agent, "sh", "-c", "echo ready; exec sleep 600", stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            pids = [process.pid, *children(process.pid)]
            for pid, what in zip(pids, ("supervisor", "lifeline"), strict=True):
                held = footprint(pid)
                shown = [f"{size / 1024:.1f} MB" for size in (held.rss, held.pss, held.uss)]
                print(f"{what}: {shown[0]} resident, {shown[1]} its share, {shown[2]} its own")
            print(f"both: {sum(footprint(pid).pss for pid in pids) / 1024:.1f} MB their share (goal: at most 10)")
            process.terminate()


if __name__ == "__main__":
    main()
