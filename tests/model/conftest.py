"""A host of the model for the tests that lead it through orders of events of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.model import central
from tests.model.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """Central's database without rows, to copy."""
    return central.template(tmp_path_factory.mktemp("central"))


@pytest.fixture
def world(template) -> Iterator[World]:
    """A host with an agent that is logged in."""
    made = World(template)
    made.start()
    yield made
    made.close()
