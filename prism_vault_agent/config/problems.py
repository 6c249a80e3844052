"""What is wrong with a configuration, told as ``file:line: key: what; what to do``. No message repeats a value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.config.lines import KeyPath, line_of, lines
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.policy.names import fault, shown

if TYPE_CHECKING:
    from pydantic import ValidationError

Fields = Mapping[tuple[str, ...], Iterable[str]]

MISSING: Final = "is missing"
_AUTH: Final = ("vault", "auth")
_TYPES: Final = {
    "string_type": "a string, in quotes",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "list_type": "a list",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the key, what is wrong with it, and what to do."""

    path: KeyPath
    what: str
    mend: str


@dataclass(frozen=True)
class Origin:
    """Where keys come from: a file's name and text, and the variables that stand in for keys the file does not set."""

    name: str
    text: str
    variables: Mapping[KeyPath, str] = field(default_factory=dict)

    def error(self, problem: Problem) -> ConfigError:
        """Return the error that tells ``problem`` with its place."""
        return ConfigError(f"{self._place(problem.path)}{problem.what}", mend=problem.mend)

    def line(self, path: KeyPath) -> int:
        """Return the line on which ``path``, or the nearest table around it, is set."""
        return line_of(self._lines, path)

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        return lines(self.text)

    def _place(self, path: KeyPath) -> str:
        if path in self.variables:
            return f"environment variable {self.variables[path]}: "
        return f"{self.name}:{self.line(path)}: {dotted(path)}: "


def dotted(path: KeyPath) -> str:
    """Return a key as TOML writes it, with ``[n]`` for the n-th entry of a list, counted from 0."""
    told = ""
    for part in path:
        if isinstance(part, int):
            told += f"[{part}]"
        else:
            bare = part if fault(part.replace("-", "_")) is None else f'"{shown(part)}"'
            told += f".{bare}" if told else bare
    return told


def problems_of(error: ValidationError, fields: Fields, methods: Iterable[str]) -> list[Problem]:
    """Return what pydantic found, in our words.

    ``fields`` says which keys are known below which table (``*`` is any name), ``methods`` which methods there are.
    """
    known = tuple(methods)
    return [_problem(found, fields, known) for found in error.errors(include_url=False, include_input=False)]


def _problem(found: Any, fields: Fields, methods: tuple[str, ...]) -> Problem:
    kind: str = found["type"]
    path = _path(found["loc"], kind, methods)
    if kind == "extra_forbidden":
        return Problem(path, "is not a known key", _nearest(str(path[-1]), fields.get(_table(found["loc"]), ())))
    if kind.startswith("union_tag"):
        path = (*path, "method")
    what, mend = _told(kind, found.get("ctx", {}), methods)
    return Problem(path, what, mend)


def _told(kind: str, context: Mapping[str, Any], methods: tuple[str, ...]) -> tuple[str, str]:
    """Return what is wrong and what to do, for a kind of pydantic's."""
    told = {
        "missing": (MISSING, "add it"),
        "too_short": ("is empty", "name at least one"),
        "literal_error": ("has an unknown value", f"write {context.get('expected')}"),
        "union_tag_not_found": ("is missing", f"write one of {', '.join(methods)}"),
        "union_tag_invalid": ("has an unknown value", f"write one of {', '.join(methods)}"),
        "greater_than_equal": ("is out of range", f"write at least {context.get('ge')}"),
        "less_than_equal": ("is out of range", f"write at most {context.get('le')}"),
        **{wrong_type: ("has the wrong type", f"write {right}") for wrong_type, right in _TYPES.items()},
    }
    if kind == "value_error":
        what, _, mend = str(context["error"]).partition("; ")
        return what, mend
    return told.get(kind, ("is not valid", "see docs/reference/configuration.md"))


def _path(location: tuple[str | int, ...], kind: str, methods: tuple[str, ...]) -> KeyPath:
    """Return the key that pydantic's location means: without its tag of a union and its mark of a dictionary's key.

    The mark stands behind the name of a scope; anywhere else ``[key]`` is a key that somebody wrote.
    """
    marked = kind != "extra_forbidden" and location[2:] == ("[key]",)
    path = location[:-1] if marked else location
    if path[:2] == _AUTH and len(path) > len(_AUTH) and path[2] in methods:
        path = (*path[:2], *path[3:])
    return path


def _table(location: tuple[str | int, ...]) -> tuple[str, ...]:
    """Return where the known keys of the table around ``location`` are listed."""
    return tuple(
        "*" if isinstance(part, int) or (place == 1 and location[0] == "scopes") else part
        for place, part in enumerate(location[:-1])
    )


def _nearest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
