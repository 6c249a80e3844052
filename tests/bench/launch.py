"""What a launch costs: ``python -m tests.bench.launch [ROUNDS]``.

Warm exec (agent up, both audit steps acknowledged by central on loopback) and cold ``--direct`` against the interpreter's own
start, a standard-library script, an hvac script, and OpenBao's agent in exec mode; all read the same five keys.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from tests.bench.stand import HVAC_SCRIPT, PYTHON, STDLIB_SCRIPT, Stand, interleaved, once, stand, table
from tests.support.agent import LAUNCHER

INTERPRETER = "python -I -c pass"
WARM = "prism-vault exec (warm)"
DIRECT = "prism-vault exec --direct (cold)"
HVAC = "hvac script (login and read)"
BAO = "bao agent exec"


def main() -> None:
    """Run and print the table and the goals."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with stand() as here:
        scope = ["--scope", "bench"]
        contenders = {
            INTERPRETER: ([PYTHON, "-I", "-c", "pass"], rounds),
            "python -I -S -E -c pass": ([PYTHON, "-I", "-S", "-E", "-c", "pass"], rounds),
            WARM: ([LAUNCHER, "exec", *scope, "--", "/bin/true"], rounds),
            DIRECT: ([LAUNCHER, "exec", "--direct", "--config", str(here.agent.config), *scope, "--", "/bin/true"], rounds),
            "standard-library script (login and read)": (
                [*here.script(STDLIB_SCRIPT), "secret/data/bench", "/bin/true"],
                rounds,
            ),
            HVAC: ([*here.script(HVAC_SCRIPT), "bench", "/bin/true"], rounds),
            BAO: (here.bao_agent("/bin/true"), max(3, rounds // 8)),
        }
        for name, (command, _) in contenders.items():
            if name != BAO:
                once(command, here.environment())
        times = interleaved(contenders, here.environment(), rounds)
        calls, modules = client_costs(contenders[WARM][0], here)
    table(times, INTERPRETER)
    middle = {name: statistics.median(each) for name, each in times.items()}
    print(f"\nwarm exec - interpreter: {middle[WARM] - middle[INTERPRETER]:.1f} ms (goal: at most 15)")
    print(f"bao agent exec / warm exec: {middle[BAO] / middle[WARM]:.0f} times (goal: at least 60)")
    print(f"the client: {calls} system calls and {modules} imports until it becomes the command, the interpreter's own included")
    print(f"--direct / hvac script: {middle[DIRECT] / middle[HVAC]:.2f} (goal: below 1)")


def client_costs(command: list[str], here: Stand) -> tuple[str, str]:
    """Return how many system calls and modules the warm client needs until it becomes the command; "?" without strace."""
    trace = here.directory / "trace"
    try:
        once(["strace", "-o", str(trace), *command], here.environment())
    except FileNotFoundError:
        return "?", "?"
    calls = trace.read_text().splitlines()
    becomes = max(number for number, line in enumerate(calls) if line.startswith("execve("))
    shebang = Path(LAUNCHER).read_text().splitlines()[0].removeprefix("#!").split()
    done = subprocess.run(
        [*shebang, "-X", "importtime", LAUNCHER, *command[1:]], env=here.environment(), capture_output=True, check=True
    )
    return str(becomes + 1), str(sum(line.startswith(b"import time:") for line in done.stderr.splitlines()) - 1)


if __name__ == "__main__":
    main()
