"""Programs that run beside renders: readers, strangers who try to open what they may not, and who swaps links in.

Each gets the directory of all rendered files as its first argument, and runs while the file ``go-on`` is beside that directory.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Neither root nor the user whom tests take for an ordinary one.
STRANGERS_UID = 65533

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
while os.path.exists(os.path.dirname(top) + "/go-on"):
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
while os.path.exists(os.path.dirname(top) + "/go-on"):
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

# Another user who is told by inotify(7) of everything that happens where it may look, and tries at once to open what that is
# about: by its path, and in each directory that it has had open since before it was replaced.
WATCHER = """
import contextlib, ctypes, os, select, stat, struct, sys
top, names = sys.argv[1], sys.argv[2:]
libc = ctypes.CDLL(None, use_errno=True)
inotify = libc.inotify_init1(os.O_NONBLOCK)
inside = {top + "/web/" + os.path.dirname(name) for name in names}
wanted = [os.path.dirname(top), top, top + "/.staged", *inside]
where, held = {}, []
events = tried = opened = 0
def attempt(path, **options):
    global tried, opened
    tried += 1
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK, **options)
        opened += not stat.S_ISDIR(os.fstat(descriptor).st_mode)
        os.close(descriptor)
print("reading", flush=True)
while os.path.exists(os.path.dirname(top) + "/go-on"):
    for path in wanted:
        if (number := libc.inotify_add_watch(inotify, path.encode(), 0xfff)) > 0:
            where[number] = path
    with contextlib.suppress(OSError):
        held.append(os.open(top + "/web", os.O_RDONLY | os.O_DIRECTORY))
    while len(held) > 8:
        os.close(held.pop(0))
    if select.select([inotify], [], [], 0.01)[0]:
        told = os.read(inotify, 65536)
        while told:
            number, _, _, length = struct.unpack_from("iIII", told)
            name = told[16:16 + length].rstrip(b"\\0").decode()
            told = told[16 + length:]
            events += 1
            attempt(os.path.join(where.get(number, top), name))
    for name in names:
        attempt(top + "/web/" + name)
        for directory in held:
            attempt(name, dir_fd=directory)
print(events, tried, opened, flush=True)
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
    (directory / "go-on").touch()  # of all that run beside the same block, the first to end ends the others
    told: list[int] = []
    process = subprocess.Popen([*(before or []), sys.executable, "-I", "-c", code, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "reading\n"
        yield told
    finally:
        (directory / "go-on").unlink(missing_ok=True)
        told += [int(word) for word in process.stdout.read().split()]
        process.stdout.close()
        assert process.wait(60) == 0
