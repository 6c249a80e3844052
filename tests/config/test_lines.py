"""Every key of a TOML text is found on the line where it stands."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.config.lines import KeyPath, line_of, lines

TEXT = '''\
# a comment with [brackets] and "quotes"
[agent]
host = "a # no comment"   # one
text = """
[not.a.table]
key = "no"
"""  # three
literal = \'\'\'
\'\' x = 1
\'\'\'
"odd key"."a.b" = 1.5
dotted.inner.key = 1979-05-27T07:32:00Z
list = [ # open
  1,
  [2, 3],
  { a = 1, "b c" = { d = [4,
    5] } },
]

[[scopes.many]]
name = 'one'
[scopes.many.env]
A = "1"
[[scopes.many]]
name = 'two'
quotes = """a\\"""b"""""
last = true
'''


def test_keys_of_all_kinds_are_found():
    """Tables, arrays of tables, dotted and quoted keys, entries of lists and of inline tables have their lines."""
    tomllib.loads(TEXT)
    found = lines(TEXT)
    expected: dict[KeyPath, int] = {
        ("agent",): 2,
        ("agent", "host"): 3,
        ("agent", "text"): 4,
        ("agent", "literal"): 8,
        ("agent", "odd key", "a.b"): 11,
        ("agent", "dotted", "inner", "key"): 12,
        ("agent", "list"): 13,
        ("agent", "list", 0): 14,
        ("agent", "list", 1, 1): 15,
        ("agent", "list", 2, "a"): 16,
        ("agent", "list", 2, "b c", "d", 1): 17,
        ("scopes", "many", 0, "name"): 21,
        ("scopes", "many", 0, "env", "A"): 23,
        ("scopes", "many", 1): 24,
        ("scopes", "many", 1, "name"): 25,
        ("scopes", "many", 1, "last"): 27,
    }
    assert {path: found.get(path) for path in expected} == expected
    assert ("not", "a") not in found
    assert ("agent", "x") not in found


def test_what_is_not_there_has_the_line_of_what_is_around_it():
    """A missing key is told at its table; without any table at the first line."""
    assert line_of(lines(TEXT), ("agent", "missing")) == 2
    assert line_of(lines(TEXT), ("scopes", "many", 1, "env")) == 24
    assert line_of(lines(TEXT), ("other",)) == 1
    assert line_of({}, ()) == 1


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=6)
VALUES = st.recursive(
    st.one_of(st.integers(-9, 9), st.booleans(), KEYS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write(value: Any, path: KeyPath, out: list[str], where: dict[KeyPath, int]) -> None:
    """Write a value, a list over several lines, and note on which line every part of it is."""
    if isinstance(value, list):
        out.append("[ # ]\n")
        for index, inner in enumerate(value):
            where[(*path, index)] = "".join(out).count("\n") + 1
            _write(inner, (*path, index), out, where)
            out.append(",\n")
        out.append("]")
    elif isinstance(value, dict):
        out.append("{")
        for number, (key, inner) in enumerate(value.items()):
            out.append(", " if number else "")
            where[(*path, key)] = "".join(out).count("\n") + 1
            out.append(f"{_quoted(key)} = ")
            _write(inner, (*path, key), out, where)
        out.append("}")
    else:
        out.append(_quoted(value))


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
def test_every_key_of_any_text_is_found(tree: dict[str, dict[str, Any]]):
    """Whatever tables are written, every key and every entry has the line on which it was written."""
    out: list[str] = []
    where: dict[KeyPath, int] = {}
    for table, keys in tree.items():
        where[table,] = "".join(out).count("\n") + 1
        out.append(f"[{_quoted(table)}]\n")
        for key, value in keys.items():
            where[table, key] = "".join(out).count("\n") + 1
            out.append(f"{_quoted(key)} = ")
            _write(value, (table, key), out, where)
            out.append("\n")
    text = "".join(out)
    assert tomllib.loads(text) == tree
    assert lines(text) == where
