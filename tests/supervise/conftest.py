"""An agent that answers at once: what is tested here begins behind its answer."""

from __future__ import annotations

import pytest

from tests.exec.fake_agent import FakeAgent, answer

CANARY = b"canary-51c8"


@pytest.fixture(scope="package")
def agent(tmp_path_factory):
    """An agent that releases one value."""
    with FakeAgent(tmp_path_factory.mktemp("agent"), answer({b"DB": CANARY})) as running:
        yield running
