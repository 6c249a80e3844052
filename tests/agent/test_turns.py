"""What a run is told of at a rotation, where its files went back to what they were before."""

from __future__ import annotations

from prism_vault_agent.agent.runs.turns import Since


def noted(since: Since, marks: dict[str, str]) -> bool:
    """Note what is news of this, and tell whether something is to be done."""
    since.note(since.news(marks))
    return since.outdated != since.done


def test_a_look_at_what_was_gone_back_from_undoes_nothing():
    """Who was told of a version is told again when files went back from it, though a look finds that version just then."""
    since = Since(outdated={"a": "2"}, done={"a": "2"})
    assert noted(since, since.back(1.0)) and noted(since, {"a": "2"})
    assert since.outdated == {"a": "2 back 1.000"}


def test_who_was_told_that_files_went_back_is_told_once():
    """What was gone back from stays the newest, and is no reason to tell anybody a third time; a newer one is."""
    since = Since(outdated={"a": "2"}, done={"a": "2"})
    noted(since, since.back(1.0))
    since.done = dict(since.outdated)
    assert not noted(since, {"a": "2"})
    assert noted(since, since.back(2.0)) and since.outdated == {"a": "2 back 2.000"}
    assert noted(since, {"a": "3"}) and since.outdated == {"a": "3"}
