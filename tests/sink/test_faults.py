"""Every file system call of a render or clear, killed or failed in turn: nothing torn, no residue after a restart (F36, F37)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.sink.generation import clear, sweep
from tests.sink.contents import NAMES, content, render
from tests.support.soak import count

if TYPE_CHECKING:
    from prism_vault_agent.sink.place import Place

CALLS = (
    "openat2,openat,mkdirat,fchmod,fchown,fallocate,write,fsync,linkat,renameat2,ftruncate,unlinkat,fchmodat,pread64,read,"
    "getdents64,newfstatat"
)
# Of these, the calls whose manual pages name EINTR.
INTERRUPTED = {"openat2", "openat", "fallocate", "write", "fsync", "ftruncate", "pread64", "read"}
MARK = "getpriority"
ACT = str(Path(__file__).with_name("act.py"))
FAULTS = ("signal=SIGKILL", "error=ENOSPC", "error=EIO", "error=EINTR")
FEWEST = 60

pytestmark = [pytest.mark.tool("strace"), pytest.mark.soak]


def act(place: Place, *words: str, way: str, trace: str, inject: str = "", log: Path | None = None) -> int:
    """Do one act under strace; return its exit status, negative for a signal."""
    filtered = "" if way == "openat2" else "openat2:error=ENOSYS"
    injected = [word for each in (filtered, inject) if each for word in ("-e", f"inject={each}")]
    options = ["-f", "-o", str(log or "/dev/null"), "-e", f"trace={trace},openat2", *injected]
    command = [sys.executable, "-I", "-B", ACT, place.path, *words]
    return subprocess.run(["strace", *options, *command], capture_output=True, check=False).returncode


def points(place: Place, words: tuple[str, ...], way: str, log: Path) -> list[tuple[str, int]]:
    """Return each file system call of an act: its name, and which one of that name it is since the process began."""
    assert act(place, *words, way=way, trace=f"{CALLS},{MARK}", log=log) == 0
    seen: dict[str, int] = {}
    found, marks = [], 0
    for name in re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE):
        seen[name] = seen.get(name, 0) + 1
        if name == MARK:
            marks += 1
        elif marks == 1 and (name != "openat2" or way == name):
            found.append((name, seen[name]))
    assert marks == 2
    return found


def chosen(calls: list[tuple[str, int]], fault: str, step: int) -> list[tuple[str, int]]:
    """Return the calls that a fault is tried at: all that can have it, or a part, another one for each fault."""
    able = [each for each in calls if fault != "error=EINTR" or each[0] in INTERRUPTED]
    return able[FAULTS.index(fault) % step :: step]


def visible(place: Place) -> dict[str, bytes]:
    top = Path(place.path) / "web"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file() and path.name in shown()}


def shown() -> set[str]:
    return {name.rpartition("/")[2] for name in NAMES}


def whole(number: int) -> dict[str, bytes]:
    return {name: content(number, name) for name in NAMES}


@pytest.mark.parametrize("fault", FAULTS)
def test_f36_f37_a_render_is_whole_at_every_call(place, way, tmp_path, fault):
    """Killed or failed at any call, the old generation or the new one is visible and whole, and a restart leaves no residue."""
    render(place.descriptor, 1)
    calls = points(place, ("render", "2"), way, tmp_path / "log")
    assert len(calls) >= FEWEST
    for name, nth in chosen(calls, fault, count(8 if way == "openat2" else 32, 1)):
        render(place.descriptor, 1)
        status = act(place, "render", "2", way=way, trace=name, inject=f"{name}:{fault}:when={nth}")
        found = visible(place)
        if fault == "error=EINTR":
            assert (status, found) == (0, whole(2)), (name, nth)
        elif fault == "signal=SIGKILL":
            assert status != 0 and found in (whole(1), whole(2)), (name, nth)
        else:
            assert (status == 0 and found == whole(2)) or (status == 75 and found == whole(1)), (name, nth, status)
        assert sweep(place.descriptor, ["web"]) == []
        assert os.listdir(f"{place.path}/.staged") == []
        assert visible(place) == found, (name, nth)


@pytest.mark.parametrize("fault", FAULTS)
def test_f36_f37_a_clear_leaves_nothing_at_every_call(place, way, tmp_path, fault):
    """Killed or failed at any call, a clear has left the files whole or nothing of them, and a restart leaves no residue."""
    render(place.descriptor, 1)
    calls = points(place, ("clear",), way, tmp_path / "log")
    assert len(calls) >= 15
    for name, nth in chosen(calls, fault, count(4 if way == "openat2" else 16, 1)):
        render(place.descriptor, 1)
        status = act(place, "clear", way=way, trace=name, inject=f"{name}:{fault}:when={nth}")
        found = visible(place)
        assert found == {} or (found == whole(1) and fault == "signal=SIGKILL"), (name, nth)
        assert status == 0 or fault != "error=EINTR", (name, nth)
        clear(place.descriptor, "web")
        sweep(place.descriptor, [])
        assert os.listdir(f"{place.path}/.staged") == []
        assert visible(place) == {}
