"""Generations on a real tmpfs: whole, right from the start, switched at once, cleared for who has them open too (G5, T11-T15)."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from pathlib import Path

import pytest

from prism_vault_agent.sink import record
from prism_vault_agent.sink.generation import Content, clear, discard, stage, sweep, switch
from tests.sink.contents import NAMES, content, contents, render
from tests.support.as_user import NOBODY, become


def visible(place) -> dict[str, bytes]:
    top = Path(place.path)
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and path.name not in (".lock", record.NAME)
    }


def residue(place) -> list[str]:
    return os.listdir(Path(place.path) / ".staged")


def whole(number: int) -> dict[str, bytes]:
    return {f"web/{name}": content(number, name) for name in NAMES}


def test_a_generation_is_staged_unseen_and_then_visible(place):
    """What is staged cannot be reached by others; after the switch every file is there, whole, and nothing is left behind."""
    staged = stage(place.descriptor, "web", contents(1), {})
    assert not (Path(place.path) / "web").exists()
    assert stat.S_IMODE((Path(place.path) / ".staged").stat().st_mode) == 0o700
    switch(place.descriptor, "web", staged)
    assert (visible(place), residue(place)) == (whole(1), [])
    render(place.descriptor, 2)
    assert (visible(place), residue(place)) == (whole(2), [])


@pytest.mark.parametrize("umask", [0, 0o777])
@pytest.mark.parametrize("mode", [0o400, 0o440, 0o640])
def test_f46_the_mode_is_exact_under_any_umask(place, umask, mode):
    """A file has its mode and no other from the moment that it has a name, whatever the umask is."""
    before = os.umask(umask)
    try:
        switch(place.descriptor, "web", stage(place.descriptor, "web", contents(1, mode), {}))
    finally:
        os.umask(before)
    found = {name: (Path(place.path) / "web" / name).stat() for name in NAMES}
    assert {stat.S_IMODE(each.st_mode) for each in found.values()} == {mode}
    assert {stat.S_IMODE((Path(place.path) / name).stat().st_mode) for name in ("web", "web/keys")} == {0o755}


@pytest.mark.root
def test_the_owner_is_right_before_the_name_is_visible(place):
    """A file for another user is that user's already where it is staged."""
    staged = stage(place.descriptor, "web", [Content("web.env", b"x", 65534, 65533, 0o440)], {})
    found = os.stat(f"{staged.name}/web.env", dir_fd=place.descriptor)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65533, 0o440)


def test_what_did_not_change_is_not_rewritten(place):
    """A file with the same content, owner and mode keeps its inode and time; one that differs is a new one."""
    first = render(place.descriptor, 1)
    again = stage(place.descriptor, "web", contents(1), {})
    switch(place.descriptor, "web", again)
    assert again.files == first.files
    assert visible(place) == whole(1)
    changed = [Content("web.env", b"new", os.geteuid(), os.getegid(), 0o400), *contents(1)[1:]]
    other = stage(place.descriptor, "web", changed, {})
    switch(place.descriptor, "web", other)
    assert other.files[1:] == first.files[1:] and other.files[0].inode != first.files[0].inode


def test_what_is_discarded_leaves_the_visible_files_alone(place):
    """Discarding a generation that was not wanted neither empties nor removes a file that it shares with the visible one."""
    render(place.descriptor, 1)
    staged = stage(place.descriptor, "web", contents(1), {})
    discard(place.descriptor, staged.name)
    assert (visible(place), residue(place)) == (whole(1), [])


def test_t15_who_has_a_cleared_file_open_reads_nothing_more(place):
    """Cleared files are gone by name, and empty for who has them open; clearing again finds nothing."""
    render(place.descriptor, 1)
    with (Path(place.path) / "web/web.env").open("rb") as reader:
        assert clear(place.descriptor, "web")
        assert reader.read() == b""
    assert (visible(place), residue(place)) == ({}, [])
    assert not clear(place.descriptor, "web")


def test_f48_who_has_a_rotated_file_open_reads_the_old_one_to_its_end(place):
    """A reader that opened a file before a rotation reads that generation whole."""
    render(place.descriptor, 1)
    with (Path(place.path) / "web/web.env").open("rb") as reader:
        half = reader.read(100)
        render(place.descriptor, 2)
        assert half + reader.read() == content(1, "web.env")


@pytest.mark.parametrize("planted", ["symlink", "dangling", "fifo", "file", "hard link", "socket"])
def test_t12_what_is_planted_at_the_target_is_replaced_and_never_followed(place, directory, planted):
    """Whatever has the scope's name or a file's is replaced by its name; a victim elsewhere stays as it is, and nothing waits."""
    victim = directory / "victim"
    victim.write_text("victim")
    target = Path(place.path) / "web"
    if planted == "symlink":
        target.symlink_to(directory)
    elif planted == "dangling":
        target.symlink_to(directory / "nothing")
    elif planted == "fifo":
        os.mkfifo(target)
    elif planted == "socket":
        os.mknod(target, stat.S_IFSOCK | 0o600)
    else:
        target.mkdir()
        if planted == "hard link":
            inside = Path(place.path) / "inside"
            inside.write_text("victim")
            os.link(inside, target / "web.env")
        else:
            (target / "web.env").write_text("theirs")
    render(place.descriptor, 1)
    assert {name: value for name, value in visible(place).items() if name.startswith("web/")} == whole(1)
    assert victim.read_text() == "victim" and not (directory / "nothing").exists()
    if planted == "hard link":
        assert (Path(place.path) / "inside").read_text() == "victim"


@pytest.mark.namespaces
def test_f35_a_full_file_system_is_told_before_a_byte_is_written(place):
    """Where the space is not there nothing of the new generation is, the old one stays whole, and the next render works."""
    room = os.fstatvfs(place.descriptor)
    assert room.f_blocks * room.f_frsize == 64 << 20, "a tmpfs of its own, which may be filled"
    render(place.descriptor, 1)
    size = room.f_bavail * room.f_frsize // 3
    huge = [Content(f"f{n}", b"x" * size, os.geteuid(), os.getegid(), 0o400) for n in range(4)]
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        stage(place.descriptor, "web", huge, {})
    assert (visible(place), residue(place)) == (whole(1), [])
    render(place.descriptor, 2)
    assert visible(place) == whole(2)


def test_f45_what_somebody_does_to_a_file_is_told(place):
    """A file that is gone, replaced, edited or has another mode is told by name; what was not touched is not."""
    staged = render(place.descriptor, 1)
    assert record.drift(place.descriptor, "web", staged.files) == []
    top = Path(place.path) / "web"
    (top / "keys/TOKEN").unlink()
    (top / "web.env").chmod(0o600)
    assert record.drift(place.descriptor, "web", staged.files) == ["web.env has another owner or mode", "keys/TOKEN is gone"]
    (top / "web.env").write_text("theirs")
    (top / "keys/TLS_KEY").rename(top / "keys/moved")
    (top / "keys/TLS_KEY").write_text("theirs")
    told = record.drift(place.descriptor, "web", staged.files)
    assert told == ["web.env was edited", "keys/TLS_KEY was replaced", "keys/TOKEN is gone"]
    render(place.descriptor, 1)
    assert visible(place) == whole(1)


def test_the_record_says_what_a_generation_is(place):
    """The next agent reads what was told of a generation, and its files; one that others could have written is not believed."""
    staged = render(place.descriptor, 7)
    assert record.read(place.descriptor, "web") == ({"number": 7}, staged.files)
    note = Path(place.path) / "web" / record.NAME
    assert b"web.env" in note.read_bytes() and b"7 web.env" not in note.read_bytes()
    note.chmod(0o644)
    assert record.read(place.descriptor, "web") is None
    note.chmod(0o600)
    note.write_text("{}")
    assert record.read(place.descriptor, "web") is None


def test_f49_a_sweep_clears_all_but_what_is_kept(place):
    """What is staged and what nobody knows is emptied and removed; what is to be kept stays as it is."""
    render(place.descriptor, 1)
    render(place.descriptor, 2, "other")
    stage(place.descriptor, "web", contents(3), {})
    (Path(place.path) / "stray").write_text("x")
    assert sorted(sweep(place.descriptor, ["web"])) == ["other", "stray"]
    assert (visible(place), residue(place)) == (whole(1), [])


@pytest.mark.root
def test_t15_a_lease_of_its_owner_holds_up_nobody(place):
    """Whose a file is may have a lease on it: a clear removes it without waiting, and says what is left."""
    wanted = Content("web.env", b"KEY=canary\n", NOBODY, NOBODY, 0o400)
    switch(place.descriptor, "web", stage(place.descriptor, "web", [wanted], {}))
    path = Path(place.path) / "web/web.env"
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become(NOBODY, NOBODY)
            signal.signal(signal.SIGIO, signal.SIG_IGN)  # so we are told that somebody wants it, and do not care
            fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
            os.write(told, b"leased")
            signal.pause()
        finally:
            os._exit(0)
    try:
        assert os.read(ready, 6) == b"leased"
        with pytest.raises(BlockingIOError):
            clear(place.descriptor, "web")
        assert (visible(place), residue(place)) == ({}, [])
        assert clear(place.descriptor, "web") is False
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)
