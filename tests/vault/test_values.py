"""How a value in Vault becomes text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.errors import ConfigError, ProtocolError
from prism_vault_agent.vault import strict_json
from prism_vault_agent.vault.values import as_text

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def read(text: str) -> str:
    return as_text(strict_json.parse(f'{{"value": {text}}}'.encode(), exact_numbers=True)["value"], "vault://a/b#c")


@pytest.mark.parametrize(
    ("stored", "delivered"),
    [
        ('"plain"', "plain"),
        ('""', ""),
        ('"null"', "null"),
        ('"a\\u0000b\\n\\u2028"', "a\0b\n\u2028"),
        ("8200", "8200"),
        ("1.10", "1.10"),
        ("-0", "-0"),
        ("1e400", "1e400"),
        ("1E+2", "1E+2"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1" * 5000, "1" * 5000),
        ("true", "true"),
        ("false", "false"),
        ("null", "null"),
        ('[1.50, "é\\"", null]', '[1.50,"é\\"",null]'),
        ('{"b": {"n": 1e1}, "a": []}', '{"b":{"n":1e1},"a":[]}'),
    ],
)
def test_each_type_has_one_text(stored: str, delivered: str) -> None:
    """A string is itself, and anything else is its compact JSON text with the digits that the server wrote."""
    assert read(stored) == delivered


@given(TREES)
def test_text_of_anything_but_a_string_reads_back_as_the_same(tree: object) -> None:
    """Whatever is stored, its text is the value itself or JSON that means the same."""
    text = read(json.dumps(tree))
    assert text == tree if isinstance(tree, str) else json.loads(text) == tree


def test_a_value_that_no_interpreter_follows_is_a_typed_error() -> None:
    """A list nested ten thousand deep is refused with a typed error, not a crash."""
    with pytest.raises((ConfigError, ProtocolError)):
        read("[" * 10_000 + "]" * 10_000)


def test_a_value_nested_deeper_than_the_writer_follows_names_its_reference() -> None:
    """A value that can be parsed but not written is refused by the name of its reference."""
    nested: object = "CANARY"
    for _ in range(2_000):
        nested = [nested]
    with pytest.raises(ConfigError) as refused:
        as_text(nested, "vault://a/b#c")
    assert "vault://a/b#c" in refused.value.line()
    assert "CANARY" not in refused.value.line()
