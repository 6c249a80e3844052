"""The notes of ends: what the next agent finds of a generation that was about to end when this one was killed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.agent.files.ends import ENDED, Ends
from prism_vault_agent.agent.files.rendered import told
from prism_vault_agent.model import Render, ReservationId
from prism_vault_agent.sink import generation, record
from prism_vault_agent.sink.place import STAGED
from tests.audit.nouns import reservation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RENDER = Render(reservation(), (), ())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[int]:
    """Give a place of files with a visible generation of the scope ``web``, and a next one that is staged."""
    (tmp_path / STAGED).mkdir()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    generation.switch(descriptor, "web", generation.stage(descriptor, "web", [], told(RENDER.reservation, 1)))
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def ends(place: int) -> Ends:
    made = Ends()
    made.place = place
    return made


def test_the_record_of_a_replaced_generation_is_its_note(ends: Ends, place: int, tmp_path: Path) -> None:
    """Nothing is written for the end of what a rotation replaces: its record stays, under the name of a note."""
    (tmp_path / ENDED).mkdir()
    inode = (tmp_path / "web" / record.NAME).stat().st_ino
    following = replace(RENDER.reservation, id=ReservationId("2"))
    with ends.replacing(RENDER):
        generation.switch(place, "web", generation.stage(place, "web", [], told(following, 2)))
    assert (tmp_path / ENDED / RENDER.reservation.id).stat().st_ino == inode
    ((found, reason, signal),) = ends.left()
    assert (found.id, found.grant.scopes[0].name, reason, signal) == (RENDER.reservation.id, "web", "rotated", None)
    ends.forget(RENDER.reservation.id)
    assert not list(ends.left())


def test_a_replaced_generation_without_a_record_has_a_note_all_the_same(ends: Ends, tmp_path: Path) -> None:
    """Where somebody has removed the record, or there are no notes yet, one is written."""
    with ends.replacing(RENDER):
        pass
    (tmp_path / ENDED / RENDER.reservation.id).unlink()
    (tmp_path / "web" / record.NAME).unlink()
    with ends.replacing(RENDER):
        pass
    assert [(found.id, reason) for found, reason, _ in ends.left()] == [(RENDER.reservation.id, "rotated")]


def test_a_switch_that_fails_leaves_no_note(ends: Ends, tmp_path: Path) -> None:
    """What has not ended is not noted, and the visible record is as it was."""
    (tmp_path / ENDED).mkdir()
    with pytest.raises(OSError), ends.replacing(RENDER):
        raise OSError
    assert not list(ends.left())
    assert json.loads((tmp_path / "web" / record.NAME).read_bytes())["told"]["reservation"] == RENDER.reservation.id
