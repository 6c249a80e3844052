"""The table of faults is held to the tests: what it lists is there, and what names a fault is listed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs_tools.faults import ROOMS

TESTS = Path(__file__).parents[1]
LISTED = {number: files.split() for faults in ROOMS.values() for number, (_, _, files) in faults.items()}
NAMED = re.compile(r"\bF(\d+)\b")


@pytest.mark.parametrize("number", LISTED)
def test_a_listed_file_is_there_and_has_tests(number):
    """Each fault has a file at least, and each file has tests."""
    assert LISTED[number]
    for name in LISTED[number]:
        functions = [node.name for node in ast.walk(ast.parse((TESTS / name).read_text())) if isinstance(node, ast.FunctionDef)]
        assert any(each.startswith("test_") for each in functions), name


def test_the_rooms_are_whole():
    """F8 to F18, F35 to F60, F63 to F80 and F95 to F102 are all listed, and no other."""
    assert [*LISTED] == [*range(8, 19), *range(35, 61), *range(63, 81), *range(95, 103)]


def test_what_names_a_fault_is_listed():
    """A file whose docstrings name one of these faults stands in its row."""
    missing = []
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        texts = [ast.get_docstring(each) or "" for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.Module)]
        named = {int(found) for text in texts for found in NAMED.findall(text)}
        name = str(path.relative_to(TESTS))
        missing += [(number, name) for number in named & LISTED.keys() if path != Path(__file__) and name not in LISTED[number]]
    assert not missing
