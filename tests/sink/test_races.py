"""Readers and attackers during many renders: no torn or mixed read, nothing outside, nothing opened by others (T11, T13)."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.sink import linux
from prism_vault_agent.sink.generation import clear
from prism_vault_agent.sink.place import open_place
from tests.sink.contents import NAMES, render
from tests.support.as_user import prefix
from tests.support.soak import count

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.soak

RENDERS = count(400, 10_000)

# Opens the directory once, as one who wants one generation does, and reads every file of it; then each file by its path.
READER = """
import os, sys
top, names = sys.argv[1], sys.argv[2:]
read = torn = mixed = 0
def content(path, **options):
    global read, torn
    descriptor = os.open(path, os.O_RDONLY, **options)
    data = b""
    while part := os.read(descriptor, 700):
        data += part
    os.close(descriptor)
    read += 1
    lines = set(data.splitlines())
    torn += len(lines) != 1 or data.count(b"\\n") != 200
    return data.split()[0]
print("reading", flush=True)
while os.path.exists(top + "/../go-on"):
    try:
        directory = os.open(top + "/web", os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        continue
    try:
        mixed += len({content(name, dir_fd=directory) for name in names}) != 1
        for name in names:
            content(top + "/web/" + name)
    except FileNotFoundError:
        pass
    finally:
        os.close(directory)
print(read, torn, mixed, flush=True)
"""

# Another user of the host, who tries to open everything that has a name, all the time.
STRANGER = """
import os, sys
top = sys.argv[1]
tried = opened = 0
print("reading", flush=True)
while os.path.exists(top + "/../go-on"):
    for name in sys.argv[2:]:
        for path in (f"{top}/web/{name}", f"{top}/.staged", f"{top}/web/.generation", top):
            tried += 1
            try:
                os.close(os.open(path, os.O_RDONLY))
                opened += 1
            except OSError:
                pass
print(tried, opened, flush=True)
"""

# Exchanges the directory that the agent opened for a link that leads elsewhere, as fast as it can.
SWAPPER = """
import os, sys
top, elsewhere = sys.argv[1:]
swaps = 0
os.symlink(elsewhere, top + ".link")
print("reading", flush=True)
while os.path.exists(os.path.dirname(top) + "/go-on"):
    os.rename(top, top + ".aside")
    os.rename(top + ".link", top)
    os.rename(top, top + ".link")
    os.rename(top + ".aside", top)
    swaps += 1
print(swaps, flush=True)
"""

# The same below it, with the directory of the scope, by whoever may write there after all.
INSIDE = (
    SWAPPER.replace("top, elsewhere = sys.argv[1:]", "top, elsewhere = sys.argv[1] + '/web', sys.argv[2]")
    .replace("os.path.dirname(top)", "os.path.dirname(os.path.dirname(top))")
    .replace("    os.rename", "    with contextlib.suppress(OSError): os.rename")
    .replace("import os, sys", "import contextlib, os, sys")
)


@contextlib.contextmanager
def beside(directory: Path, code: str, *words: str, before: list[str] | None = None) -> Iterator[list[int]]:
    """Run a program beside the block, until its end; fill the list with the counts that it tells then."""
    (directory / "go-on").touch()
    told: list[int] = []
    process = subprocess.Popen([*(before or []), sys.executable, "-I", "-c", code, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "reading\n"
        yield told
    finally:
        (directory / "go-on").unlink()
        told += [int(word) for word in process.stdout.read().split()]
        process.stdout.close()
        assert process.wait(60) == 0


def test_a_reader_never_gets_a_torn_or_mixed_generation(place, directory):
    """Through renders and rotations a reader gets each file whole, and through an open directory all of one generation."""
    render(place.descriptor, 0)
    with beside(directory, READER, place.path, *NAMES) as told:
        for number in range(1, RENDERS + 1):
            render(place.descriptor, number // 2)  # each second one changes nothing
    read, torn, mixed = told
    assert read > 100 and (torn, mixed) == (0, 0)


@pytest.mark.root
def test_t11_another_user_opens_nothing(place, directory):
    """Whatever has a name at any moment of any render, another user opens none of it."""
    os.umask(before := os.umask(0))
    try:
        with beside(directory, STRANGER, place.path, *NAMES, before=prefix()) as told:
            for number in range(RENDERS):
                render(place.descriptor, number)
    finally:
        os.umask(before)
    tried, opened = told
    assert tried > 100 and opened == 0


@pytest.mark.parametrize("swapper", [SWAPPER, INSIDE], ids=["above", "inside"])
def test_t13_a_link_swapped_in_leads_nothing_outside(directory, monkeypatch, swapper):
    """While the directory, or a scope's in it, is exchanged for a link as fast as can be, nothing is written where it leads."""
    monkeypatch.setattr(linux, "mount_tmpfs", denied)  # what is mounted on cannot be renamed
    place = open_place(str(directory / "files"), ["swap"])
    elsewhere = directory / "elsewhere"
    (elsewhere / "keys").mkdir(parents=True)
    render(place.descriptor, 0)
    with beside(directory, swapper, place.path, str(elsewhere)) as told:
        for number in range(RENDERS):
            with contextlib.suppress(OSError):  # it is refused, or lands where it belongs
                render(place.descriptor, number)
            with contextlib.suppress(OSError):
                clear(place.descriptor, "web")
    assert told[0] > 50
    assert list(elsewhere.rglob("*")) == [elsewhere / "keys"]
    place.close()


def denied(*_words: str) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
