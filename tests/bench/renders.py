"""What files cost through a real agent, OpenBao and central: ``python -m tests.bench.renders [SCOPES] [ROUNDS]``.

One file rendered, warm, beside OpenBao's own agent that is started to write it once; 1,000 files rendered, and all rotated at one
moment, as 1,000 scopes of one file, 100 of ten and one of 1,000, of one secret, and as 1,000 scopes of a secret each; what the
agent's front has in memory then. Processor time is told beside seconds: on a busy machine these tell of the others.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.agent.asking import eventually, pid_of
from tests.bench.files import plain
from tests.bench.stand import Stand, cpu_seconds, interleaved, measured, stand, table
from tests.support import bao_agent
from tests.support.agent import LAUNCHER
from tests.support.files import SYSTEMD
from tests.support.memory import footprint

if TYPE_CHECKING:
    from collections.abc import Iterator

GOAL_SECONDS, GOAL_RATIO, GOAL_MEMORY = 2.0, 3.0, 60.0


@dataclass(frozen=True)
class Shape:
    """As many scopes of one secret, or of one each (``apart``), with so many files each."""

    scopes: int
    files: int
    apart: bool = False

    def __str__(self) -> str:
        """Return what it is called."""
        return f"{self.scopes} scopes of {self.files} files" + (" and a secret of their own" if self.apart else "")

    @property
    def names(self) -> list[str]:
        """The scopes."""
        return [f"{self.files}-files-{'apart-' if self.apart else ''}{each}" for each in range(self.scopes)]

    @property
    def paths(self) -> list[str]:
        """The files of each."""
        return [f"web-{each}.env" for each in range(self.files)]

    def secret(self, name: str) -> str:
        """Return the secret of a scope."""
        return f"secret/own/{name}" if self.apart else f"secret/of-{self.files}"

    def write(self, here: Stand, number: int) -> None:
        """Write a value to every secret, and have the agent look for it where that took more than a moment."""
        for secret in dict.fromkeys(map(self.secret, self.names)):
            here.openbao.kv_put(secret, {"key": value(number)})
        if self.apart and number:
            here.agent.hang_up()


def main() -> None:
    """Run and print the tables and the goals."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    with on_tmpfs() as top:
        lines = f'files = "{top}"\nfiles_risks = ["swap"]'
        with stand({}, agent=lines, vault='poll = "1s"', files=[SYSTEMD]) as here:
            print(f"load of the machine: {os.getloadavg()[0]:.1f}")
            one(here, rounds)
            plain(top.parent, 0)
            floor = measured(lambda: plain(top.parent, 1))
            print(f"floor: 1,000 files written and renamed by a simple loop: {floor:.2f} s")
            for shape in (Shape(number, 1), Shape(number // 10, 10), Shape(1, number)):
                add(here, shape)
                rotated(here, top, shape, floor)
            memory = footprint(pid_of(here.agent)).rss / 1024
            print(f"front: {memory:.1f} MB resident with all of these (goal: below {GOAL_MEMORY:.0f})")
            add(here, apart := Shape(number, 1, apart=True))
            rotated(here, top, apart, floor)


def add(here: Stand, shape: Shape) -> None:
    """Have the agent know the scopes of a shape, and the provider their secret."""
    shape.write(here, 0)
    files = [{"path": path, "format": "systemd"} for path in shape.paths]
    for name in shape.names:
        poll = {"poll": "60s"} if shape.apart else {}  # all of them at one moment, not as each is written
        here.agent.scope(name, {"KEY": f"vault://{shape.secret(name)}#key"}, files=files, **poll)
    here.agent.hang_up()
    eventually(lambda: {*shape.names} <= {scope["name"] for scope in here.agent.status()["scopes"]}, 120)


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


def rotated(here: Stand, top: Path, shape: Shape, floor: float) -> None:
    """Render every scope of a shape, rotate all at one moment, and tell how long the last file took, and whether any was torn."""
    words = [LAUNCHER, "render", *shape.names]
    said = measured(lambda: subprocess.run(words, env=here.environment(), check=True, capture_output=True))
    processes = {"front": pid_of(here.agent), "central": central_of(here), "OpenBao": here.openbao.pid}
    begun = time.monotonic()
    shape.write(here, 1)
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    changed, torn = watched([top / name / path for name in shape.names for path in shape.paths])
    used = ", ".join(f"{name} {cpu_seconds(pid) - before[name]:.1f} s" for name, pid in processes.items())
    took = changed[-1] - changed[0]
    print(f"{shape}: rendered in {said:.2f} s; rotated in {took:.2f} s from the first to the last", end=" ")
    print(f"(goal: {GOAL_SECONDS} s), {took / floor:.1f} times the floor, {torn} torn (goal: 0)")
    print(f"  the last {changed[-1] - begun:.2f} s after the write, of a poll of 1 s; processor time meanwhile: {used}")


def watched(files: list[Path]) -> tuple[list[float], int]:
    """Return when each file was seen to have its new value, to a twentieth of a second, and how often one was neither."""
    old, new = (f'KEY="{value(each)}"\n' for each in (0, 1))
    left, changed, torn = files, [], 0
    while left:
        found = {file: file.read_text() for file in left}
        changed += [time.monotonic() for text in found.values() if text == new]
        torn += sum(text not in (old, new) for text in found.values())
        left = [file for file, text in found.items() if text != new]
        time.sleep(0.05)  # looking all the time would take a processor from what is measured
    return changed, torn


def central_of(here: Stand) -> int:
    """Return central's process."""
    assert here.central.process is not None
    return here.central.process.pid


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
