"""Every test says the rule it proves, and everything public of the package says what it promises."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
SOURCES = sorted((ROOT / "prism_vault_agent").rglob("*.py"))
Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(path: Path) -> list[tuple[str, Defined]]:
    """Return every class and function of a file that is not inside a function, with its dotted name."""
    found: list[tuple[str, Defined]] = []
    waiting: list[tuple[str, ast.AST]] = [("", ast.parse(path.read_text(encoding="utf-8")))]
    while waiting:
        prefix, node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Defined):
                name = f"{prefix}{child.name}"
                found.append((name, child))
                if isinstance(child, ast.ClassDef):
                    waiting.append((f"{name}.", child))
            elif not isinstance(child, ast.expr):
                waiting.append((prefix, child))
    return found


def _public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_states_its_rule(path):
    """Every test function has a docstring that starts with one whole sentence."""
    silent = []
    for name, node in _definitions(path):
        first = (ast.get_docstring(node) or "").partition("\n\n")[0]
        if name.rpartition(".")[2].startswith("test_") and not first.endswith((".", "?", "!")):
            silent.append(f"{name} (line {node.lineno})")
    assert silent == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_states_its_promise(path):
    """Every module, public class and public function of the package has a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} says nothing"
    silent = [
        f"{name} (line {node.lineno})" for name, node in _definitions(path) if _public(name) and not ast.get_docstring(node)
    ]
    assert silent == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    """No file of the package has more than 250 lines, and no function more than 60."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 250
    long = [
        f"{name} ({node.end_lineno - node.lineno + 1} lines)"
        for name, node in _definitions(path)
        if not isinstance(node, ast.ClassDef) and node.end_lineno is not None and node.end_lineno - node.lineno >= 60
    ]
    assert long == []
