"""On which line of a TOML text a key is set: the standard library's parser does not say, and error messages need it."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KeyPath = tuple[str | int, ...]

# The text has been parsed before, so it is known to be TOML: this only has to tell strings, keys and marks apart.
_TOKEN: Final = re.compile(
    r"""
      (?P<skip>[ \t\r]+ | \#[^\n]*)
    | (?P<newline>\n)
    | (?P<text>\"{3} (?:\\.|(?!\"{3}).)* \"{3,5} | '{3} (?:(?!'{3}).)* '{3,5} | "(?:\\.|[^"\\])*" | '[^']*')
    | (?P<mark>[\[\]{}=,.])
    | (?P<bare>[^\s\[\]{}=,.#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def lines(text: str) -> dict[KeyPath, int]:
    """Return the line of every key, table and list entry of a valid TOML text."""
    return _Reader(text).read()


def line_of(known: Mapping[KeyPath, int], path: KeyPath) -> int:
    """Return the line of ``path``, or of the nearest table around it, counted from 1; ``known`` is of :func:`lines`."""
    return next((known[path[:length]] for length in range(len(path), 0, -1) if path[:length] in known), 1)


class _Reader:
    """Reads statements one after the other; nested values by a list of open ones, not by recursion."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = next(self.tokens)
        self.found: dict[KeyPath, int] = {}
        self.last: dict[KeyPath, int] = {}  # index of the newest table of each array of tables

    def read(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self.at.kind != "end":
            if self.at.kind == "newline":
                self.step()
            elif self.at.text == "[":
                table = self.header()
            else:
                self.value(self.key(table))
        return self.found

    def step(self) -> _Token:
        taken, self.at = self.at, next(self.tokens)
        return taken

    def header(self) -> KeyPath:
        line = self.step().line
        array = self.at.text == "["
        if array:
            self.step()
        path: KeyPath = ()
        parts = self.parts("]")
        for number, part in enumerate(parts):
            path = (*path, part)
            if array and number == len(parts) - 1:
                self.last[path] = self.last.get(path, -1) + 1
            self.found.setdefault(path, line)
            if path in self.last:
                path = (*path, self.last[path])
                self.found.setdefault(path, line)
        if array:
            self.step()
        return path

    def key(self, table: KeyPath) -> KeyPath:
        line = self.at.line
        path = table
        for part in self.parts("="):
            path = (*path, part)
            self.found.setdefault(path, line)
        return path

    def parts(self, end: str) -> list[str]:
        """Take a dotted key and the mark that ends it."""
        parts = []
        while self.at.text != end and self.at.kind != "end":
            token = self.step()
            if token.kind == "text":
                parts.append(str(tomllib.loads(f"key = {token.text}")["key"]))
            elif token.kind == "bare":
                parts.append(token.text)
        self.step()
        return parts

    def value(self, path: KeyPath) -> None:
        """Take a value; of lists and inline tables, everything in them."""
        open_values: list[tuple[str, KeyPath, int]] = []
        self.begin(path, open_values)
        while open_values:
            closing, path, index = open_values.pop()
            if self.at.kind == "end":
                return
            if self.at.text == closing and self.at.kind == "mark":
                self.step()
                continue
            comma = self.at.kind == "mark" and self.at.text == ","
            open_values.append((closing, path, index + comma))
            if comma or self.at.kind == "newline":
                self.step()
            elif closing == "]":
                self.found.setdefault((*path, index), self.at.line)
                self.begin((*path, index), open_values)
            else:
                self.begin(self.key(path), open_values)

    def begin(self, path: KeyPath, open_values: list[tuple[str, KeyPath, int]]) -> None:
        if self.at.kind == "mark" and self.at.text in "[{":
            open_values.append(("]" if self.step().text == "[" else "}", path, 0))
            return
        while self.at.kind not in ("newline", "end") and not (self.at.kind == "mark" and self.at.text in ",]}"):
            self.step()


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind != "skip":
            yield _Token(kind, match[0], line)
        line += match[0].count("\n")
    while True:
        yield _Token("end", "", line)
