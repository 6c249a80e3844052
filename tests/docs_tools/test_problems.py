"""The reference of problem codes has every code that central uses, and no other."""

from __future__ import annotations

import ast
import re

import pytest

from docs_tools import problems
from prism_vault_agent.central.http.codes import CODES


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("Problem(400, 'brand_new', 'text')", "'brand_new' with status 400"),
        ("Problem(409, 'query', 'text')", "'query' with status 409"),
        ("Unauthenticated('brand_new')", "'brand_new' with status 401"),
        ("refused(event, 409, 'brand_new', 'text')", "'brand_new' with status 409"),
        ("Denial(f'{what}_forbidden', 'text')", "'[a-z_]+_forbidden' with status 403"),
        ("Answer(413, appended=False, reason='brand_new')", "'brand_new' with status 413"),
        ("{404: 'brand_new'}.get(status, 'http')", "'brand_new' with status 404"),
    ],
)
def test_a_code_that_is_not_in_the_table_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch, source: str, told: str):
    """A code that central uses without a row in the table, or with another status, fails the check by file and line."""
    (tmp_path / "central").mkdir()
    (tmp_path / "central" / "new.py").write_text(f"\n{source}\n")
    monkeypatch.setattr(problems, "CENTRAL", tmp_path / "central")

    with pytest.raises(SystemExit, match=re.escape(f"central/new.py:2: {told} is not in central/http/codes.py")):
        problems.page()


def test_a_code_that_nothing_uses_is_named(monkeypatch: pytest.MonkeyPatch):
    """A row of the table that no code of central uses fails the check."""
    monkeypatch.setitem(CODES, "unused_word", CODES["query"])

    with pytest.raises(SystemExit, match="nothing uses 'unused_word'"):
        problems.page()


def test_each_call_that_names_a_code_is_seen():
    """The check sees codes in positional and keyword arguments, in formatted texts, and in maps from statuses."""
    calls = "Problem(400, 'a', 'x'); refused(e, 409, 'b', 'x'); Answer(413, reason='c'); _follow(t, reason='d')"
    used = [place for node in ast.walk(ast.parse(calls)) if isinstance(node, ast.Call) for place in problems._named(node, "")]

    assert {(place.status, place.code) for place in used} == {(400, "a"), (409, "b"), (413, "c"), (None, "d")}
