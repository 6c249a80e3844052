"""An agent that runs as root keeps the capabilities that it uses, its workers those that they use, and no way to more."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.capabilities import OF_AGENT, OF_WORKER, Capability, keep
from tests.agent.asking import processes
from tests.support.as_user import NOBODY, in_child

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = [pytest.mark.root, pytest.mark.namespaces]

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def sets(pid: int | str = "self") -> dict[str, int]:
    """Return the capabilities of a process (proc_pid_status(5)), and whether programs may gain it any."""
    lines = Path(f"/proc/{pid}/status").read_text().split("\n")
    found = {name: int(line.split()[1], 16) for line in lines for name in SETS if line.startswith(f"{name}:")}
    return found | {"NoNewPrivs": int(next(line.split()[1] for line in lines if line.startswith("NoNewPrivs:")))}


def mask(kept: Iterable[Capability]) -> int:
    """Return a set as the kernel writes it."""
    return sum(1 << each for each in kept)


def test_roots_agent_keeps_what_it_uses(agent):
    """The front has seven of root's capabilities, its workers and their parent four, and neither can get another one back."""
    found = {what: sets(pid) for what, pid in processes(agent).items()}
    front = found.pop("front")
    assert front == dict.fromkeys(SETS, mask(OF_AGENT)) | {"CapInh": 0, "CapAmb": 0, "NoNewPrivs": 0}
    assert len(found) == 5
    for what, theirs in found.items():
        assert theirs["CapPrm"] == theirs["CapEff"] == mask(OF_WORKER), what
        assert (theirs["CapBnd"], theirs["CapInh"], theirs["CapAmb"]) == (mask(OF_AGENT), 0, 0), what
        assert theirs["NoNewPrivs"] == 1, what
    assert len(OF_AGENT) == 7 and len(OF_WORKER) == 4


def test_what_was_given_up_is_gone():
    """Neither the process nor a program that it starts as root can do what took the capability; what was kept works."""

    def give_up() -> list[str]:
        keep(OF_AGENT)
        told = []
        with tempfile.NamedTemporaryFile() as file:
            os.chown(file.name, NOBODY, NOBODY)
            assert Path(file.name).stat().st_uid == NOBODY
        for what, attempt in (
            ("setuid", lambda: os.setresuid(NOBODY, NOBODY, NOBODY)),
            ("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
            ("chroot", lambda: os.chroot("/")),
            ("nice", lambda: os.nice(-5)),
        ):
            try:
                attempt()
            except PermissionError:
                told.append(what)
        started = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        return [*told, started.partition("CapEff:")[2].split()[0]]

    assert in_child(give_up, uid=None) == ["setuid", "raw", "chroot", "nice", f"{mask(OF_AGENT):016x}"]


def test_without_programs_none_is_gained():
    """A process that starts no programs gains nothing by one: not even what root's programs are given."""

    def give_up() -> str:
        keep(OF_WORKER, execs=False)
        started = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        return started.partition("CapEff:")[2].split()[0]

    assert in_child(give_up, uid=None) == f"{mask(OF_WORKER):016x}"


def test_who_has_none_keeps_none():
    """For an ordinary user nothing is gained, and nothing fails."""

    def give_up() -> dict[str, int]:
        keep(OF_AGENT)
        return sets()

    found = in_child(give_up)
    assert (found["CapPrm"], found["CapEff"], found["CapInh"], found["CapAmb"]) == (0, 0, 0, 0)
