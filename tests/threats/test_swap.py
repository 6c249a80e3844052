"""T10: what is rendered is never written to a swap device, or the operator has named that risk."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.threats.starting import refusal, unstarted

if TYPE_CHECKING:
    from collections.abc import Iterator

MADV_PAGEOUT = 21  # madvise(2), Linux 5.4
LOCK = Path("/tmp/prism-vault-swap.lock")


@contextlib.contextmanager
def swap() -> Iterator[None]:
    """Give the host 32 MB of swap for a moment, one test at a time."""
    with LOCK.open("w") as lock, tempfile.TemporaryDirectory(prefix=".swap-", dir=Path(__file__).parents[2]) as directory:
        fcntl.flock(lock, fcntl.LOCK_EX)
        device = Path(directory) / "swap"
        device.touch(mode=0o600)
        device.write_bytes(b"\0" * (32 << 20))
        subprocess.run(["mkswap", "--quiet", device], check=True, capture_output=True)
        subprocess.run(["swapon", device], check=True)
        try:
            yield
        finally:
            subprocess.run(["swapoff", device], check=True)


def swapped(path: Path) -> int:
    """Have the kernel page a file out as far as it may; return how many KiB of it are in swap then (proc_pid_smaps(5))."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        bytes(mapped)  # every page is looked at, so that it is mapped
        mapped.madvise(MADV_PAGEOUT)
        of_file = Path("/proc/self/smaps").read_text().partition(str(path))[2]
        found = re.search(r"^Swap: +(\d+) kB$", of_file, re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.namespaces
def test_t10_the_kernel_swaps_what_status_says_it_may(made):
    """Pushed out by the kernel, no page of a file of root's agent is in swap, and an ordinary user's is; status tells which."""
    roots = made.stack.agent.user == 0
    name = made.scope("large")
    made.stack.openbao.kv_put(f"secret/{name}", {"key": "x" * 100_000})
    made.render(name)
    mounts = map(str.split, Path("/proc/self/mountinfo").read_text().splitlines())
    options = [mount[-1] for mount in mounts if mount[4] == str(made.top)]

    assert ["noswap" in each.split(",") for each in options] == [True] * roots
    assert (made.stack.agent.status()["files_memory"] == "noswap") == roots
    with swap():
        found = swapped(made.top / name / "web.env")
    assert (found == 0) if roots else (found >= 90)


@pytest.mark.namespaces
@pytest.mark.parametrize("risks", ["", 'files_risks = ["disk"]', 'files_risks = ["swap"]'])
def test_t10_where_swap_is_an_agent_refuses_unless_the_risk_is_named(made, above, risks):
    """Where the host has swap and the tmpfs may go there, the agent ends with 73 and says what to do, or warns all along."""
    top = above / "files"
    (top / "not-empty").mkdir(parents=True)  # which root's agent does not mount upon
    made.give(top, top / "not-empty")
    agent = unstarted(made, above, f'files = "{top}"\n{risks}')
    with swap():
        if "swap" in risks:
            with agent:
                assert agent.status()["files_memory"] == "swap"
                assert "files.place" in agent.log and '"memory": "swap"' in agent.log
            return
        done = refusal(agent)
    assert f"{top} is on a tmpfs that may be swapped to a disk" in done and 'files_risks = ["swap"]' in done
