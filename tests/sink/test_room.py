"""What a render meets of a file system: any amount of room, few inodes, short writes, one that is read-only (F35, F37, F43)."""

from __future__ import annotations

import errno
import os
import subprocess
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.errors import CannotCreate
from prism_vault_agent.sink.generation import stage, switch
from prism_vault_agent.sink.place import open_place
from tests.sink.contents import NAMES, content, contents, render

if TYPE_CHECKING:
    from collections.abc import Callable

    from prism_vault_agent.sink.place import Place

PAGE = 4096
LINES = 1000  # some pages for each file
FILLER = ".filler"


def remount(place: Place, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place.path], check=True, capture_output=True)


def leave_pages(place: Place, left: int) -> None:
    """Fill the file system but for so many pages."""
    free = os.fstatvfs(place.descriptor).f_bfree
    with open(f"{place.path}/{FILLER}", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, (free - left) * PAGE)
    assert os.fstatvfs(place.descriptor).f_bfree == left


def leave_inodes(place: Place, left: int) -> None:
    """Fill the file system but for so many inodes, one of which is a directory's."""
    os.mkdir(f"{place.path}/{FILLER}")
    for number in range(os.fstatvfs(place.descriptor).f_ffree - left):
        os.mkdir(f"{place.path}/{FILLER}/{number}")
    assert os.fstatvfs(place.descriptor).f_ffree == left


def empty(place: Place) -> None:
    subprocess.run(["rm", "-rf", f"{place.path}/{FILLER}"], check=True)


def found(place: Place) -> dict[str, bytes]:
    return {name: (Path(place.path) / "web" / name).read_bytes() for name in NAMES}


@pytest.mark.namespaces
@pytest.mark.parametrize("leave", [leave_pages, leave_inodes])
def test_f35_whatever_room_there_is_a_render_is_whole_or_not_there(place, monkeypatch, leave: Callable[[Place, int], None]):
    """From none to enough, page by page and inode by inode: the old generation or the new one, and nothing beside it.

    Where there is not enough for its files, no byte of them is written.
    """
    written, real = [], os.write

    def write(descriptor: int, data: memoryview) -> int:
        written.append(bytes(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    remount(place, "size=512k,nr_inodes=64")
    visible = 1
    switch(place.descriptor, "web", stage(place.descriptor, "web", contents(visible, lines=LINES), {}))
    refused = []
    for left in count():
        leave(place, left)
        written.clear()
        wanted = contents(visible + 1, lines=LINES)
        try:
            switch(place.descriptor, "web", stage(place.descriptor, "web", wanted, {}))
        except OSError as error:
            refused.append(error.errno)
            assert written in ([], [each.content for each in wanted]), "the note beside them may lack room"
        else:
            visible += 1
        assert found(place) == {name: content(visible, name, lines=LINES) for name in NAMES}, left
        assert os.listdir(f"{place.path}/.staged") == []
        empty(place)
        if visible > 1:
            break
    assert len(refused) >= 5 and set(refused) == {errno.ENOSPC}


@pytest.mark.parametrize("most", [1, 7])
def test_f37_short_writes_are_written_to_their_end(place, monkeypatch, most: int):
    """However few bytes the kernel takes at a time, a file has all of them before it has a name."""
    real = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:most]))
        render(place.descriptor, 1)
    assert found(place) == {name: content(1, name) for name in NAMES}


@pytest.mark.namespaces
def test_f43_what_is_read_only_is_no_place_and_a_place_is_not_made_read_only(directory):
    """Nobody makes a directory read-only that an agent has; one that is, is refused with the reason until it is writable."""
    place = open_place(str(directory / "files"))
    render(place.descriptor, 1)
    with pytest.raises(subprocess.CalledProcessError):
        remount(place, "ro")
    place.close()
    remount(place, "ro")
    try:
        with pytest.raises(CannotCreate, match=os.strerror(errno.EROFS)):
            open_place(place.path)
    finally:
        remount(place, "rw")
    place = open_place(place.path)
    assert found(place) == {name: content(1, name) for name in NAMES}
    place.close()
