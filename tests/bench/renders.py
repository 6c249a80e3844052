"""What files cost through a real agent, OpenBao and central: ``python -m tests.bench.renders [SCOPES] [ROUNDS]``.

One file rendered, warm, beside OpenBao's own agent that is started to write it once; 1,000 scopes of one file rendered; the
secret of all of them rotated; what the agent's front has in memory then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.agent.asking import pid_of
from tests.bench.stand import Stand, cpu_seconds, interleaved, measured, stand, table
from tests.support import bao_agent
from tests.support.agent import LAUNCHER
from tests.support.files import SYSTEMD
from tests.support.memory import footprint

if TYPE_CHECKING:
    from collections.abc import Iterator

GOAL_SECONDS, GOAL_RATIO, GOAL_MEMORY = 2.0, 3.0, 60.0


def main() -> None:
    """Run and print the tables and the goals."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    names = [f"scope-{each}" for each in range(number)]
    with on_tmpfs() as top:
        scopes = {name: {"KEY": "vault://secret/shared#key"} for name in names}
        lines = f'files = "{top}"\nfiles_risks = ["swap"]'
        with stand(scopes, agent=lines, vault='poll = "1s"', files=[SYSTEMD]) as here:
            here.openbao.kv_put("secret/shared", {"key": value(0)})
            print(f"load of the machine: {os.getloadavg()[0]:.1f}")
            one(here, rounds)
            many(here, top, names)


def one(here: Stand, rounds: int) -> None:
    """Compare a warm render of one file with OpenBao's agent, started to write the same file and end."""
    ours = [LAUNCHER, "render", "bench"]
    contenders = {"prism-vault render": (ours, rounds), "bao agent, exit_after_auth": (one_shot(here), rounds)}
    for command, _ in contenders.values():
        subprocess.run(command, env=here.environment(), check=True, capture_output=True)
    times = interleaved(contenders, here.environment(), rounds)
    table(times, "bao agent, exit_after_auth")
    middle = {name: statistics.median(each) for name, each in times.items()}
    ratio = middle["bao agent, exit_after_auth"] / middle["prism-vault render"]
    asked = statistics.median(measured(lambda: at_the_socket(here)) * 1000 for _ in range(rounds))
    print(f"OpenBao's agent takes {ratio:.1f} times as long as our command (goal: at least {GOAL_RATIO:.0f})")
    told = middle["bao agent, exit_after_auth"] / asked
    print(f"and {told:.1f} times as long as the render itself, asked at the agent's socket without a command: {asked:.1f} ms\n")


def at_the_socket(here: Stand) -> None:
    """Have the same file rendered by one request."""
    status, _ = here.agent.http("POST", "/v1/render", b'{"scopes": ["bench"]}')
    assert status == 200


def one_shot(here: Stand) -> list[str]:
    """Return the command line of OpenBao's agent that writes five values into a file, and ends."""
    keys = "".join(f"{{{{ .Data.data.KEY_{each} }}}}\n" for each in range(5))
    contents = f'{{{{ with secret "secret/data/bench" }}}}{keys}{{{{ end }}}}'
    config = here.directory / "one-shot.hcl"
    config.write_text(
        "exit_after_auth = true\n" + here.bao_login() + bao_agent.in_file(here.directory / "one-shot.env", contents)
    )
    return bao_agent.command_line(config)


def many(here: Stand, top: Path, names: list[str]) -> None:
    """Render every scope, rotate all at one moment, and tell how long the last file took, and whether any was torn."""
    said = measured(lambda: subprocess.run([LAUNCHER, "render", *names], env=here.environment(), check=True, capture_output=True))
    print(
        f"{len(names)} files rendered, one after the other by one command: {said:.2f} s ({said / len(names) * 1000:.1f} ms each)"
    )
    front = pid_of(here.agent)
    before = {name: cpu_seconds(pid) for name, pid in (("front", front), ("OpenBao", here.openbao.pid))}
    here.openbao.kv_put("secret/shared", {"key": value(1)})
    begun = time.monotonic()
    changed, torn = watched(top, names)
    took, noticed = changed[-1] - changed[0], changed[0] - begun
    used = {name: cpu_seconds(pid) - before[name] for name, pid in (("front", front), ("OpenBao", here.openbao.pid))}
    print(
        f"{len(names)} files rotated: {took:.2f} s from the first to the last (goal: {GOAL_SECONDS} s), {torn} torn (goal: 0);",
        end=" ",
    )
    print(f"the first was there {noticed:.2f} s after the write, of a poll of 1 s")
    print("processor time meanwhile: " + ", ".join(f"{name} {each:.1f} s" for name, each in used.items()))
    print(f"front: {footprint(front).rss / 1024:.1f} MB resident with that many scopes (goal: below {GOAL_MEMORY:.0f})")


def watched(top: Path, names: list[str]) -> tuple[list[float], int]:
    """Return when each file was seen to have its new value, and how often one was neither the old nor the new."""
    old, new = (f'KEY="{value(each)}"\n' for each in (0, 1))
    left, changed, torn = set(names), [], 0
    while left:
        for name in sorted(left):
            found = (top / name / "web.env").read_text()
            if found == new:
                left.discard(name)
                changed.append(time.monotonic())
            torn += found not in (old, new)
    return changed, torn


def value(number: int) -> str:
    """Return the value of every secret before or after the rotation."""
    return f"value-{number}-" + "x" * 64


@contextlib.contextmanager
def on_tmpfs() -> Iterator[Path]:
    """Give a directory in memory for the agent's files."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm"))
    directory.chmod(0o755)
    try:
        yield directory / "files"
    finally:
        if (directory / "files").is_mount():
            subprocess.run(["umount", directory / "files"], check=True)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
