"""What status and plan say of what is out there: whether it is the newest, what failed, and what a rotation would do."""

from __future__ import annotations

import time
from typing import Any

import pytest

from prism_vault_agent.cli import plan, rotation, show

FILES = {"pid": None, "at_rotation": "notify", "consumers": [{"consumer": "unit web.service", "due": False, "error": ""}]}
DUE = {"consumer": "command /bin/false", "due": True, "error": "it ended with 1"}
RUN = {"pid": 7, "at_rotation": "restart", "stale": ["secret/a"], "on_rotate": "restart"}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "newest"),
        ({"stale": True}, "a newer one is due"),
        ({"stale": True, "error": "central is away"}, "a newer one is due; FAILED: central is away"),
        ({"stale": True, "on_rotate": "none", "error": "x"}, "a newer one exists (on_rotate = none)"),
        ({"stale": True, "rolled_back": "its judge ended with 9"}, "ROLLED BACK: its judge ended with 9"),
        ({"judging": True}, "is being judged; the generation before is kept"),
        ({"drift": ["web.env was edited"]}, "web.env was edited"),
        ({"consumers": [DUE]}, "FAILED to tell command /bin/false: it ended with 1"),
        ({"consumers": [{**DUE, "error": ""}]}, "newest"),
        ({"stale": True, "drift": ["a", "b"]}, "a newer one is due; a; b"),
    ],
)  # fmt: skip
def test_what_is_told_of_files(files: dict[str, Any], told: str):
    """Files are the newest unless something is said of them, and each thing that is wrong with them is told."""
    assert rotation.of_files({**FILES, **files}) == told


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ({"stale": []}, "newest"),
        ({}, "older secret/a (on_rotate = restart)"),
        ({"pending": True, "due_in": None}, "older secret/a, restart now"),
        ({"pending": True, "due_in": 90}, "older secret/a, restart in 1 min"),
        ({"pending": True, "rotation_error": "no supervisor"}, "older secret/a, restart now; FAILED: no supervisor"),
        ({"rotated": {"what": "cannot_restart", "at": 0}}, "older secret/a, nobody could restart it {} ago"),
        ({"left": "secret_deleted"}, "LEFT with what was taken back: secret_deleted (on_revoke = clear)"),
    ],
)
def test_what_is_told_of_a_process(run: dict[str, Any], told: str):
    """Of a process that has older values it is told what is done about that and when, what was done, or why it failed."""
    assert rotation.of_run({**RUN, **run}) == told.format(show.age(time.time()))


@pytest.mark.parametrize(
    ("each", "told"),
    [
        (RUN, "is restarted by its supervisor"),
        ({**RUN, "at_rotation": "cannot_restart"}, "would be restarted, and nobody can"),
        ({**RUN, "at_rotation": "signal:HUP"}, "signal:HUP"),
        (FILES, "are written anew, told is unit web.service"),
        ({**FILES, "at_rotation": "rewrite"}, "are written anew"),
        ({**FILES, "at_rotation": "none"}, "are left as they are"),
    ],
)
def test_what_a_rotation_would_do(each: dict[str, Any], told: str):
    """The plan says what would be done with each process, and who would be told of files."""
    assert rotation.would(each) == told


def test_plan_tells_failures_and_what_a_restart_leaves():
    """The page has the state of what is out there, failures too, and says that a process nobody starts again stays."""
    said = [{"scope": "web", "name": "", "on_rotate": "restart", "on_revoke": "terminate"}]
    run = {**RUN, "scopes": ["web"], "pending": True, "rotation_error": "no supervisor"}
    given = [{**FILES, "scopes": ["web"], "stale": True, "error": "away"}, run]
    page = plan.page({"allowed": True, "reactions": said, "given": given})
    assert "any other process is left as it is\n" in page
    assert "older secret/a, restart now; FAILED: no supervisor" in page and "a newer one is due; FAILED: away" in page
    assert "left as it is" not in plan.page({"allowed": True, "reactions": [{**said[0], "on_rotate": "signal:HUP"}]})
