"""A generation that is kept until its successor is known to be good: out of sight, back in one step, or emptied where it lies."""

from __future__ import annotations

import os
from pathlib import Path

from prism_vault_agent.sink.generation import Content, bring_back, discard, stage, sweep, switch
from tests.sink.contents import contents, render
from tests.sink.test_generation import residue, visible, whole

KEPT = ".staged/web.previous"


def replace(place, number: int = 2) -> bool:
    """Make a generation visible, and tell whether the one before is kept."""
    return switch(place.descriptor, "web", stage(place.descriptor, "web", contents(number), {}), KEPT)


def inodes(place) -> dict[str, int]:
    """Return which files are visible."""
    return {name: (Path(place.path) / name).stat().st_ino for name in whole(1)}


def test_it_is_kept_out_of_sight_and_back_in_one_step(place):
    """The old files are as they were, inode by inode, and the rejected ones are gone."""
    render(place.descriptor, 1)
    before = inodes(place)
    assert replace(place)
    assert residue(place) == ["web.previous"]
    assert (Path(place.path) / "web/web.env").read_bytes() == whole(2)["web/web.env"]
    with (Path(place.path) / "web/web.env").open("rb") as rejected:
        bring_back(place.descriptor, "web", KEPT)
        assert rejected.read() == b"", "what was rejected is emptied"
    assert (visible(place), residue(place), inodes(place)) == (whole(1), [], before)


def test_what_is_not_kept_any_more_is_emptied(place):
    """Who has a file of it open reads nothing more; a file that the new generation has, too, stays as it is."""

    def make(other: bytes) -> None:
        files = {"same": b"s", "other": other}
        wanted = [Content(name, text, os.geteuid(), os.getegid(), 0o400) for name, text in files.items()]
        switch(place.descriptor, "web", stage(place.descriptor, "web", wanted, {}), KEPT)

    make(b"1")
    with (Path(place.path) / "web/other").open("rb") as reader:
        make(b"2")
        discard(place.descriptor, KEPT)
        assert reader.read() == b""
    assert (visible(place), residue(place)) == ({"web/same": b"s", "web/other": b"2"}, [])


def test_a_sweep_leaves_what_it_is_told_to_leave(place):
    """What is kept is there for the next agent, and nothing else of what is staged."""
    render(place.descriptor, 1)
    assert replace(place)
    stage(place.descriptor, "web", contents(3), {})
    sweep(place.descriptor, ["web"], None, [KEPT])
    assert residue(place) == ["web.previous"]
    bring_back(place.descriptor, "web", KEPT)
    assert visible(place) == whole(1)


def test_a_first_generation_keeps_nothing(place):
    """Where there was none before there is none to keep."""
    assert not replace(place, 1)
    assert residue(place) == []
