"""Every test says the rule it proves, and everything public of the package says what it promises."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
SOURCES = sorted((ROOT / "prism_vault_agent").rglob("*.py"))
Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _definitions(path: Path) -> list[tuple[str, Defined]]:
    """Return every class and function of a file that is not inside a function, with its dotted name."""
    found: list[tuple[str, Defined]] = []
    waiting: list[tuple[str, ast.AST]] = [("", _tree(path))]
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


def test_every_test_states_its_rule():
    """Every test function has a docstring that starts with one whole sentence."""
    silent = []
    for path in TESTS:
        for name, node in _definitions(path):
            first = (ast.get_docstring(node) or "").partition("\n\n")[0]
            if name.rpartition(".")[2].startswith("test_") and not first.endswith((".", "?", "!")):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert silent == []


def test_everything_public_states_its_promise():
    """Every module, public class and public function of the package has a docstring."""
    silent = []
    for path in SOURCES:
        where = path.relative_to(ROOT)
        if not ast.get_docstring(_tree(path)):
            silent.append(f"{where}: the module")
        silent += [
            f"{where}:{node.lineno}: {name}" for name, node in _definitions(path) if _public(name) and not ast.get_docstring(node)
        ]
    assert silent == []


def test_files_and_functions_stay_short():
    """No file of the package has more than 250 lines, and no function more than 60."""
    long = []
    for path in SOURCES:
        where = path.relative_to(ROOT)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > 250:
            long.append(f"{where}: {lines} lines")
        for name, node in _definitions(path):
            if not isinstance(node, ast.ClassDef) and node.end_lineno is not None and node.end_lineno - node.lineno >= 60:
                long.append(f"{where}:{node.lineno}: {name} has {node.end_lineno - node.lineno + 1} lines")
    assert long == []
