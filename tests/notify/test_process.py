"""Pid files: the named process is signalled, unless somebody else could have named it, or it has the number by chance."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.errors import Unavailable
from prism_vault_agent.notify import process
from prism_vault_agent.notify.occasion import Occasion
from prism_vault_agent.scope import Notify
from tests.support.as_user import NOBODY
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# It becomes the other user by itself: that user need not be able to read the interpreter.
SERVICE = """
import os, signal, sys
if len(sys.argv) > 1:
    os.setresuid(*[int(sys.argv[1])] * 3)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print("up", flush=True)
while signal.sigwait([signal.SIGHUP]):
    print("HUP", flush=True)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of root's, or the user's, that nobody else may write, and others may pass."""
    directory = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="pv-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


class Service:
    """A process that prints a line for each SIGHUP."""

    def __init__(self, user: int | None = None) -> None:
        words = [sys.executable, "-Ic", SERVICE, *([str(user)] if user else [])]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.line() == "up"

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def service() -> Iterator[Service]:
    """A service of our own user."""
    running = Service()
    yield running
    running.end()


@pytest.fixture
def theirs() -> Iterator[Service]:
    """A service of another user."""
    running = Service(NOBODY)
    yield running
    running.end()


def tell(path: Path) -> str:
    """Have the process of a pid file sent SIGHUP; return why there was nobody."""
    return asyncio.run(process.tell(Notify("pid_file", (str(path),), "HUP", ("f",)), Occasion("web", 1, "/run/files/web")))


def refused(path: Path, why: str) -> None:
    """Fail unless the process is not signalled, for this reason."""
    with pytest.raises(Unavailable, match=why):
        tell(path)


def written(path: Path, pid: int, *, mode: int = 0o644, owner: int = -1) -> Path:
    """Write a pid file."""
    path.write_text(f"{pid}\n")
    path.chmod(mode)
    os.chown(path, owner, -1)
    return path


def test_the_process_is_signalled(place, service):
    """The process that the file names gets the signal, and no descriptor is left open."""
    before = os.listdir("/proc/self/fd")
    assert tell(written(place / "web.pid", service.process.pid)) == ""
    assert service.line() == "HUP"
    assert os.listdir("/proc/self/fd") == before


def test_an_agent_with_thousands_of_descriptors_signals(place, service):
    """The process's descriptor may have any number: an agent holds one for each run."""
    path = written(place / "web.pid", service.process.pid)
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    held: list[int] = []
    try:
        while not held or held[-1] < 1200:
            held.append(os.open("/dev/null", os.O_RDONLY))
        assert tell(path) == ""
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))
    assert service.line() == "HUP"


def test_without_a_process_there_is_nobody_to_tell(place, service):
    """No file, or one whose process has ended, is nobody to tell; that is no failure, and it is said."""
    assert tell(place / "none.pid") == "there is no pid file"
    path = written(place / "web.pid", service.process.pid)
    service.end()
    assert tell(path) == "the process that its pid file names has ended"


@pytest.mark.parametrize("text", ["", "x", "-1", "12 13", "9" * 40, "1", "+7"])
def test_what_is_no_process_is_refused(place, text):
    """A file that holds no number, or the first process, is refused."""
    path = place / "web.pid"
    path.write_text(text)
    refused(path, "holds no process number|names process 1")


def test_a_process_that_got_the_number_later_is_left_alone(place, service):
    """A process that began after the file was written is another one than it means."""
    path = written(place / "web.pid", service.process.pid)
    os.utime(path, (path.stat().st_mtime - 60,) * 2)
    refused(path, "is older than process")
    os.kill(service.process.pid, 1)
    assert service.line() == "HUP", "ours was the first to come"


def test_no_other_user_may_write_it(place, service):
    """A file, or a directory on the way to it, that others may write is refused, and so is a second name."""
    path = written(place / "web.pid", service.process.pid, mode=0o666)
    refused(path, "may be written by others")
    path.chmod(0o644)
    os.link(path, place / "again.pid")
    refused(path, "has another name")
    (place / "again.pid").unlink()
    place.chmod(0o777)
    refused(path, "may be written by others")
    place.chmod(0o1777)
    assert tell(path) == "", "in a directory with the sticky bit others cannot replace it"
    assert service.line() == "HUP"


@pytest.mark.root
def test_another_users_file_names_only_that_users_process(place, service, theirs):
    """A file that a user can write has that user's process signalled and no other's, root's least of all."""
    path = written(place / "web.pid", theirs.process.pid, owner=NOBODY)
    assert tell(path) == ""
    assert theirs.line() == "HUP"
    refused(written(path, service.process.pid), "is not its owner's")
    path.unlink()
    assert tell(written(path, theirs.process.pid)) == "", "what root wrote where only root can is root's word"
    assert theirs.line() == "HUP"


@pytest.mark.root
@pytest.mark.parametrize("how", ["symbolic link", "hard link", "directory"])
def test_a_user_cannot_have_roots_pid_file_used(place, service, how):
    """A user whose directory the file is in cannot have another service signalled by a link to that one's pid file."""
    own, roots = place / "theirs", place / "roots"
    own.mkdir()
    roots.mkdir()
    target = written(roots / "web.pid", service.process.pid)
    path = own / "web.pid"
    if how == "symbolic link":
        path.symlink_to(target)
        os.chown(path, NOBODY, -1, follow_symlinks=False)
    elif how == "hard link":
        os.link(target, path)
    else:
        path = own / "on" / "web.pid"
        path.parent.symlink_to(roots)
        os.chown(path.parent, NOBODY, -1, follow_symlinks=False)
    os.chown(own, NOBODY, -1)
    refused(path, "can be replaced by another user|has another name")


@pytest.mark.root
def test_a_link_of_roots_is_followed(place, service):
    """``/var/run`` is a link on many hosts: one that only root can change is no danger."""
    (place / "run").mkdir()
    (place / "var").symlink_to("run")
    written(place / "run/web.pid", service.process.pid)
    assert tell(place / "var/web.pid") == ""
    assert service.line() == "HUP"


@pytest.mark.root
def test_a_process_with_any_of_roots_numbers_is_not_a_users(place):
    """A process that a user started and that has more than that user's numbers, as a setuid program has, is not the user's."""
    program = ["setpriv", f"--ruid={NOBODY}", "--clear-groups", "sleep", "1000"]
    with subprocess.Popen(program) as mixed:
        try:
            status = Path(f"/proc/{mixed.pid}/status")
            wait_until(lambda: f"Uid:\t{NOBODY}\t0\t0\t0" in status.read_text())
            refused(written(place / "web.pid", mixed.pid, owner=NOBODY), "is not its owner's")
        finally:
            mixed.kill()
