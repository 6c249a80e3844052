"""The command lines that the thin client takes, against the parser that explains."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.cli import main
from prism_vault_agent.errors import UsageError
from prism_vault_agent.steer import VERBS, arguments
from tests.support.soak import count

WORDS = st.sampled_from(
    [
        *("--json", "--all", "--socket", "--socket=/s", "--run-ref", "--run-ref=", "--run-ref=r", "--purpose", "--purpose=p"),
        *("--job-id", "--job-id=j", "--json=1", "--jso", "-h", "--help", "--", "-", "-1", "", "web", "db", "a b", "-a b"),
        "vault://secret/web#key",
    ]
)


@pytest.mark.parametrize("verb", VERBS)
@settings(max_examples=count(400, 20_000))
@given(words=st.lists(WORDS, max_size=6))
def test_what_it_takes_means_the_same(verb: str, words: list[str]):
    """A command line that the thin client takes is one that the whole parser takes, with the same fields."""
    asked = arguments.parse(verb, words)
    if asked is None:
        return
    parser, _ = main.parser(verb)
    try:
        expected = vars(parser.parse_args([verb, *words]))
    except UsageError as refused:
        raise AssertionError(words) from refused
    assert {name: value for name, value in vars(asked).items() if name in expected} == {
        name: value for name, value in expected.items() if name != "command"
    }


@pytest.mark.parametrize(
    "words",
    [
        ["render", "web"],
        ["render", "web", "db", "--purpose", "deploy", "--run-ref=r", "--job-id", "j"],
        ["render", "--socket", "/s", "web"],
        ["clear", "--all"],
        ["clear", "web", "--json"],
        ["rotate", "vault://secret/web#key"],
        ["revoke", "web"],
        ["revoke", "--run-ref", "r"],
    ],
)
def test_what_is_usual_is_taken(words: list[str]):
    """The command lines of the documentation are the thin client's."""
    assert arguments.parse(words[0], words[1:]) is not None
