"""The directory of rendered files: in memory, reached without links, ours alone, one agent's (T10, T13, T14, F43, F44)."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.sink import linux
from prism_vault_agent.sink.generation import Content, clear, stage
from prism_vault_agent.sink.place import open_place
from tests.support.as_user import CLONE_NEWNS, MS_REC, NOBODY, in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

MS_SHARED, MS_SLAVE = 1 << 20, 1 << 19


def refused(path: Path, **risks) -> str:
    with pytest.raises(CannotCreate) as error:
        open_place(str(path), **risks).close()
    assert error.value.exit_status == 73 and error.value.mend
    return error.value.message


@pytest.mark.namespaces
def test_t10_root_gets_a_tmpfs_that_is_never_swapped(place):
    """Where we may mount, the directory is a tmpfs of our own: noswap, nosuid, nodev, noexec, with a size."""
    (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == place.path]
    options = set(line.split()[5].split(",")) | set(line.split()[-1].split(","))
    assert {"nosuid", "nodev", "noexec", "noswap", "size=65536k", "mode=711"} <= options
    assert place.memory == "noswap"


@pytest.mark.namespaces
def test_a_kernel_without_noswap_is_told_and_not_silent(directory, monkeypatch):
    """Before Linux 6.4 the mount is made without the option; the place says so, and where swap is in use it is refused."""
    real = linux.mount_tmpfs

    def old_kernel(path: str, options: str) -> None:
        if "noswap" in options:
            raise OSError(22, "Invalid argument")
        real(path, options)

    monkeypatch.setattr(linux, "mount_tmpfs", old_kernel)
    opened = open_place(str(directory / "files"), ["swap"])
    assert (directory / "files").is_mount()
    assert opened.memory in ("no-swap-in-use", "swap")
    opened.close()


@pytest.mark.namespaces
def test_a_mount_that_only_we_would_see_is_not_made(directory):
    """In a mount namespace of its own, as systemd gives a service that it protects, the agent uses the tmpfs that others see."""

    def open_apart() -> tuple[str, bool]:
        libc = ctypes.CDLL(None)
        kept = []  # a namespace lives while somebody has it open, and so does what has a mount of it for its master
        for propagation in (MS_SHARED, MS_SLAVE):
            assert libc.unshare(CLONE_NEWNS) == 0
            kept.append(os.open("/proc/self/ns/mnt", os.O_RDONLY))
            assert libc.mount(b"none", b"/", None, MS_REC | propagation, None) == 0
        return open_place(str(directory / "files"), ["swap"]).memory, (directory / "files").is_mount()

    memory, mounted = in_child(open_apart, uid=None)
    assert memory in ("no-swap-in-use", "swap") and not mounted


@pytest.fixture
def on_a_disk() -> Iterator[Path]:
    """A directory that is not in memory, as /tmp may be: in the checkout."""
    with tempfile.TemporaryDirectory(prefix=".disk-", dir=Path(__file__).parents[2]) as directory:
        yield Path(directory)


def test_a_file_system_that_is_not_in_memory_is_refused_unless_allowed(on_a_disk, monkeypatch):
    """A directory on a disk is refused with what to do, unless the operator has allowed that risk by its name."""
    monkeypatch.setattr(linux, "mount_tmpfs", lambda *_words: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    place = on_a_disk / "files"
    assert "is not on a tmpfs" in refused(place)
    assert "is not on a tmpfs" in refused(place, risks=["swap"])
    opened = open_place(str(place), ["disk"])
    assert opened.memory == "disk"
    opened.close()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_t14_a_directory_that_others_may_write_is_refused(directory, mode):
    """The directory itself may be written by nobody else, sticky or not; the error names it."""
    place = directory / "files"
    place.mkdir()
    place.chmod(mode)
    assert f"{place}: may be written by others (mode {mode:04o})" in refused(place)


def test_t14_a_directory_above_that_others_may_write_is_refused(directory):
    """So may none above it, unless it is sticky as /tmp is; the error names the component."""
    above = directory / "above"
    above.mkdir()
    above.chmod(0o777)
    assert f"{above}: may be written by others (mode 0777)" in refused(above / "files")


@pytest.mark.root
@pytest.mark.parametrize("which", ["above", "itself"])
def test_t14_a_directory_of_somebody_else_is_refused(directory, which):
    """A component that belongs to neither root nor us is refused by name, and so is the directory where it is not ours."""
    above = directory / "above"
    (above / "files").mkdir(parents=True)
    theirs = above if which == "above" else above / "files"
    os.chown(theirs, NOBODY, NOBODY)
    assert f"{theirs}: belongs to uid {NOBODY}" in refused(above / "files")


@pytest.mark.root
def test_a_directory_that_cannot_be_entered_is_told_with_whose_it_must_be(directory):
    """A directory that is closed to the agent's user is refused by name, with the user whose it must be."""
    place = directory / "files"
    place.mkdir(mode=0o700)

    def told() -> tuple[str, str]:
        with pytest.raises(CannotCreate) as error:
            open_place(str(place))
        return error.value.message, error.value.mend

    assert in_child(told) == (f"{place}: Permission denied", f"make it the directory of uid {NOBODY}")


@pytest.mark.parametrize("where", ["above", "itself"])
def test_t13_a_link_on_the_way_is_refused(directory, where):
    """A symbolic link anywhere on the way is refused by name."""
    (directory / "real/files").mkdir(parents=True)
    if where == "above":
        (directory / "link").symlink_to(directory / "real")
        assert f"{directory}/link: is a symbolic link" in refused(directory / "link/files")
    else:
        (directory / "files").symlink_to(directory / "real/files")
        assert f"{directory}/files: is a symbolic link" in refused(directory / "files")


def test_f44_a_second_agent_is_refused(place):
    """While one agent has the directory another one does not get it; afterwards it does."""
    assert f"another agent renders below {place.path}" in refused(Path(place.path), risks=["swap"])
    place.still()


@pytest.mark.namespaces
def test_f43_a_place_that_was_unmounted_is_noticed(directory):
    """Where the path leads elsewhere while the agent runs, the next look at it says so."""
    opened = open_place(str(directory / "files"))
    opened.still()
    subprocess.run(["umount", "--lazy", opened.path], check=True)
    with pytest.raises(CannotCreate, match="is another directory than it was"):
        opened.still()
    opened.close()


@pytest.mark.root
def test_an_ordinary_user_has_a_place_of_its_own():
    """Without any right but its own a user's agent renders and clears below a directory of its own, under any umask."""
    directory = Path(tempfile.mkdtemp(prefix="pv-", dir="/dev/shm"))
    os.chown(directory, NOBODY, NOBODY)

    def open_and_render() -> tuple[str, int]:
        from tests.sink.contents import render  # noqa: PLC0415 - in the child

        opened = open_place(str(directory / "files"), ["swap"])
        os.umask(0o777)
        render(opened.descriptor, 1)
        render(opened.descriptor, 2)
        mode = stat.S_IMODE(os.stat(directory / "files/web/web.env").st_mode)
        with pytest.raises(PermissionError):  # F47: a file that cannot be given to its owner is none
            stage(opened.descriptor, "web", [Content("web.env", b"x", 0, 0, 0o400)], {})
        assert os.listdir(directory / "files/.staged") == []
        assert clear(opened.descriptor, "web")
        assert os.listdir(directory / "files/.staged") == []
        return opened.memory, mode

    try:
        memory, mode = in_child(open_and_render)
    finally:
        shutil.rmtree(directory)
    assert memory in ("no-swap-in-use", "swap") and mode == 0o400
