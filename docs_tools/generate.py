"""``python -m docs_tools.generate [--check]``: write what is generated, or name what is stale and exit with 1."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from docs_tools import agent_metrics, commands, configuration, faults, metrics, names, openapi, outputs, problems, statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT: Final = Path(__file__).parents[1]
PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "docs/reference/configuration.md": configuration.page,
    "docs/reference/scope.schema.json": configuration.schema,
    "docs/reference/cli.md": commands.page,
    "docs/reference/exit-statuses.md": statuses.page,
    "docs/reference/environment-names.md": names.page,
    "docs/reference/problems.md": problems.page,
    "docs/reference/faults.md": faults.page,
    "docs/reference/metrics.md": metrics.page,
    "docs/reference/agent-metrics.md": agent_metrics.page,
    "docs/reference/openapi.json": openapi.document,
}


def main(argv: list[str], root: Path = ROOT) -> int:
    """Write every page and refresh every block; with ``--check`` change nothing and return 1 where something is stale."""
    parser = argparse.ArgumentParser(prog="python -m docs_tools.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 and name what is stale")
    check = parser.parse_args(argv).check
    stale = {name: text for name, text in fresh(root).items() if _differs(root / name, text)}
    for name, text in stale.items():
        print(f"{name}: {'is stale; run make docs' if check else 'written'}", file=sys.stderr)
        if not check:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


def fresh(root: Path) -> dict[str, str]:
    """Return what each generated page, and each document with blocks, should hold."""
    pages = {name: make() for name, make in PAGES.items()}
    documents = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    for document in documents:
        name = str(document.relative_to(root))
        if name not in pages and document.exists():
            pages[name] = outputs.refreshed(document.read_text(encoding="utf-8"), name)
    return pages


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
