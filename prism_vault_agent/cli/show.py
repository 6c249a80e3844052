"""How the commands show things: tables, ages, JSON. What other programs made is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.steer.shown import dump, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Json", "age", "dump", "table", "text"]

Json = dict[str, Any]  # an object, as a server or the agent tells it

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return lines with columns of equal width, each indented by two spaces; without rows, nothing."""
    body = [[text(cell) for cell in row] for row in rows]
    if not body:
        return ""
    cells = [list(head), *body]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "".join(f"  {line}".rstrip() + "\n" for line in lines)


def age(seconds: float) -> str:
    """Return a duration as a person reads it: ``12 s``, ``4 min``, ``3 h 10 min``, ``2 d 4 h``."""
    whole = max(int(seconds), 0)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
