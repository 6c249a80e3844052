"""Readers and attackers during many renders: no torn or mixed read, nothing outside, nothing opened by others (T11, T13)."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest

from prism_vault_agent.sink import linux
from prism_vault_agent.sink.generation import clear
from prism_vault_agent.sink.place import open_place
from tests.sink.contents import NAMES, render
from tests.support.as_user import NOBODY, in_child, prefix
from tests.support.attackers import INSIDE, READER, STRANGER, STRANGERS_UID, SWAPPER, WATCHER, beside
from tests.support.soak import count

pytestmark = pytest.mark.soak

RENDERS = count(400, 10_000)


def test_a_reader_never_gets_a_torn_or_mixed_generation(place, directory):
    """Through renders and rotations a reader gets each file whole, and through an open directory all of one generation."""
    render(place.descriptor, 0)
    with beside(directory, READER, place.path, *NAMES) as told:
        for number in range(1, RENDERS + 1):
            render(place.descriptor, number // 2)  # each second one changes nothing
    read, torn, mixed = told
    assert read > 100 and (torn, mixed) == (0, 0)


@pytest.mark.root
@pytest.mark.parametrize("user", [0, NOBODY], ids=["root", "ordinary user"])
def test_t11_another_user_opens_nothing(directory, user):
    """Whatever has a name at any moment of any render under umask 000, another user who polls, or is told of it, opens none.

    Whose the files are reads them meanwhile, never torn or mixed.
    """
    os.chown(directory, user, -1)
    top = str(directory / "files")

    in_child(lambda: open_place(top, ["swap"]).close(), user or None)  # what is mounted later, the others would not see

    def renders() -> None:
        os.umask(0)
        place = open_place(top, ["swap"])
        for number in range(RENDERS):
            render(place.descriptor, number)
        place.close()

    with (
        beside(directory, READER, top, *NAMES, before=prefix(user, user)) as owners,
        beside(directory, STRANGER, top, *NAMES, before=prefix(STRANGERS_UID, STRANGERS_UID)) as polled,
        beside(directory, WATCHER, top, *NAMES, before=prefix(STRANGERS_UID, STRANGERS_UID)) as watched,
    ):
        in_child(renders, user or None)
    read, torn, mixed = owners
    assert read > 100 and (torn, mixed) == (0, 0)
    (tried, opened), (events, tried_when_told, opened_when_told) = polled, watched
    assert min(tried, events, tried_when_told) > 100 and (opened, opened_when_told) == (0, 0)


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
