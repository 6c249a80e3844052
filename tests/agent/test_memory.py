"""What the long-lived processes hold: no copy of a value, little memory, and nothing for each command that runs (T6)."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.agent.asking import children, descriptors, eventually, pid_of
from tests.agent.started import PATIENT, run, started
from tests.support.leaks import Canary
from tests.support.memory import copies, footprint, forms
from tests.support.soak import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent import AgentProcess

pytestmark = pytest.mark.root  # the processes are not dumpable: their memory and descriptors are root's to see

EXECS = count(300, 1000)
AT_A_TIME = 16
SCOPES = 1000
RUNS = 100
LARGEST_FRONT = 60 * 1024  # resident
LARGEST_OWN = 42 * 1024  # of its own; what it maps of libraries beside that depends on what else the host runs
SECRET = Canary().core + "-as-a-value"


@pytest.fixture(scope="module")
def agent(place, openbao, central) -> Iterator[AgentProcess]:
    """An agent with a thousand scopes, one of which has the value by name, by key and beside other keys."""
    openbao.kv_put("secret/memory", {"VALUE": SECRET, "other": "x" * 1000})
    reference = "vault://secret/memory"
    scopes: dict[str, dict[str, Any]] = {
        f"scope-{n}": {"env": {f"NAME_{k}": f"vault://secret/scope-{n}#key-{k}" for k in range(5)}} for n in range(SCOPES - 1)
    }
    scopes["held"] = {"env": {"NAMED": f"{reference}#VALUE"}, "env_from": [reference]}
    with started(place, openbao, central, scopes) as agent:
        yield agent


def long_lived(agent: AgentProcess) -> dict[str, int]:
    """Return the processes that outlive a run, by what they are: the front, its warm parent, the idle workers, central."""
    eventually(lambda: agent.status()["workers"]["idle"] >= 4)
    assert agent.central.process is not None
    ours = {f"{line} {pid}": pid for pid, line in children(pid_of(agent)).items()}
    return {"front": pid_of(agent), "central": agent.central.process.pid} | ours


@pytest.mark.soak
def test_t6_no_copy_of_a_value_stays(agent):
    """After many runs, 16 at a time, no long-lived process has one copy of the value in its memory."""

    def execute(_: int) -> int:
        return run(agent, "--scope", "held", "--", "/bin/true").returncode

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        assert set(pool.map(execute, range(EXECS))) == {0}
    processes = long_lived(agent)
    names = " ".join(processes)
    assert "prism-vault agent: warm parent" in names and names.count("prism-vault agent: worker") >= 4
    assert {name: copies(pid, SECRET) for name, pid in processes.items()} == dict.fromkeys(processes, 0)


@pytest.mark.parametrize("form", range(len(forms(SECRET))))
def test_the_scanner_finds_a_planted_copy(form):
    """A value in the memory of some process is found in each form, as long as the process lives."""
    code = "import sys\nheld = bytearray(bytes.fromhex(sys.stdin.readline()))\nprint(flush=True)\ninput()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-ISc", code], **pipes) as process:  # type: ignore[call-overload]  # plain pipes
        process.stdin.write(forms(SECRET)[form].hex().encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        found = copies(process.pid, SECRET)
        process.communicate(b"\n")
    assert found >= 1


def test_the_front_stays_small(agent):
    """With a thousand scopes, also after reloads, the front is below 60 MiB, 42 of its own, and what validates never is in it."""
    assert len(agent.status()["scopes"]) == SCOPES
    assert run(agent, "--scope", "held", "--", "/bin/true").returncode == 0
    for _ in range(3):
        agent.hang_up()
    found = footprint(pid_of(agent))
    assert (found.rss < LARGEST_FRONT, found.uss < LARGEST_OWN) == (True, True), found
    mapped = Path(f"/proc/{pid_of(agent)}/maps").read_text()
    assert "_asyncio" in mapped and "pydantic" not in mapped


def test_nothing_for_each_command_that_runs(agent):
    """A running command costs the agent one descriptor, no process and no memory to speak of, and gives all of it back."""
    with_many_runs(agent)  # once, so that what is allocated for the first time is there
    idle = taken(agent)
    busy = with_many_runs(agent)
    assert busy.descriptors - idle.descriptors == Counter({"anon_inode:[pidfd]": RUNS})
    assert busy.processes == idle.processes
    assert busy.kib - idle.kib < RUNS * 16
    eventually(lambda: taken(agent)[:2] == idle[:2])
    assert taken(agent).kib - idle.kib < 1024


class Taken(NamedTuple):
    """What an agent takes of its host: descriptors by kind, processes, resident KiB of the front."""

    descriptors: Counter[str]
    processes: int
    kib: int


def taken(agent: AgentProcess) -> Taken:
    """Return what the agent takes now, while nobody reads its configuration."""
    eventually(lambda: not any("config/__main__.py" in line for line in children(pid_of(agent)).values()))
    kinds = Counter(each.partition(":[")[0] if each.startswith("socket") else each for each in descriptors(pid_of(agent)))
    return Taken(kinds, len(children(pid_of(agent))), footprint(pid_of(agent)).rss)


def with_many_runs(agent: AgentProcess) -> Taken:
    """Return what the agent takes while many commands run; end them."""
    runs = [agent.spawn(*PATIENT, "--scope", "held", "--", "/bin/sleep", "600") for _ in range(RUNS)]
    try:
        eventually(lambda: len(agent.status()["runs"]) == RUNS, 100)
        eventually(lambda: agent.status()["workers"]["idle"] == 4)
        return taken(agent)
    finally:
        for each in runs:
            each.kill()
            each.communicate()
        eventually(lambda: agent.status()["runs"] == [])
