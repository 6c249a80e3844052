"""How long rotations of files took: what is told of one that was rendered, and of one that was not."""

from __future__ import annotations

import time

import pytest

from prism_vault_agent.agent.stages import RotationTimes, Stage
from prism_vault_agent.errors import Unavailable
from prism_vault_agent.scope import ScopeName

WEB = ScopeName("web")


def test_a_render_that_failed_is_not_under_way():
    """Stages of a render that failed are told of no later end: neither before the next attempt begins, nor as part of it."""
    times = RotationTimes(lambda _stage, _seconds: None)
    stages: dict[Stage, float] = {}
    times.noticed([WEB])

    def fail() -> None:
        with times.rendering(WEB, stages):
            stages["reserved"] = time.monotonic()
            assert list(times.so_far(WEB)) == ["reserved"]
            raise Unavailable("no", reason="timeout")

    with pytest.raises(Unavailable):
        fail()
    assert (times.so_far(WEB), times.describe(WEB)) == ({}, None)
    at = time.monotonic()
    with times.rendering(WEB, {"reserved": at, "read": at, "recorded": at, "released": at}):
        pass
    assert list(times.told(WEB)) == ["reserved", "read", "recorded", "released", "told"]
