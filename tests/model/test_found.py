"""What the model has found wrong with the agent, each as the few steps that show it, and the rule that was broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.model import central
from tests.model.invariants import Invariants
from tests.model.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    """A host with an agent that is logged in."""
    made = World(central.template(tmp_path))
    made.start()
    yield made
    made.close()


def test_an_agent_that_comes_back_goes_back_to_no_older_version(world):
    """What an earlier agent has given out is a version that was seen: a replica that lags is refused after a restart, too."""
    holds = Invariants(world)
    world.provider.write("secret/web")
    world.render("web")
    world.run(1.0)
    world.crash()
    world.provider.lagging = True
    world.start()
    world.order("rotation", {"scope": "web"})
    world.run(1.0)
    holds.check()
    (files,) = world.out()
    assert files.versions["secret/web"] == 2
    holds.end()
    assert "stale_read" in world.log.read_text()
