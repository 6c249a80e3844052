"""Cuts a Go template into text and actions, as text/template(3) of Go does, trim markers applied. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_SPACE: Final = " \t\r\n"
_STRING: Final = r'"(?:[^"\\\n]|\\.)*"|`[^`]*`'
_TOKEN: Final = re.compile(
    rf"(?P<string>{_STRING})|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<variable>\$[A-Za-z0-9_]*)|(?P<field>\.[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>:=|=|\||\(|\)|,|\.)|(?P<space>[ \t\r\n]+)"
)


class NotGo(ValueError):
    """What cannot be read, and the ``line`` of it."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an action: its ``kind`` is a group of the lexer; ``spaced`` tells whether space stands before it."""

    kind: str
    text: str
    spaced: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Text, where ``tokens`` is None, or an action; ``line`` is where it begins."""

    line: int
    text: str
    tokens: tuple[Token, ...] | None = None


def cut(text: str, left: str = "{{", right: str = "}}") -> list[Piece]:
    """Return the pieces of a template with these delimiters. Raises :class:`NotGo`."""
    pieces, at, trim = [], 0, False
    while True:
        begin = text.find(left, at)
        plain = text[at:] if begin < 0 else text[at:begin]
        if trim:
            plain = plain.lstrip(_SPACE)
        line = text.count("\n", 0, max(begin, 0)) + 1
        inside = begin + len(left)
        before = begin >= 0 and text[inside : inside + 1] == "-" and text[inside + 1 : inside + 2] in tuple(_SPACE)
        if before:
            plain, inside = plain.rstrip(_SPACE), inside + 1
        if plain:
            pieces.append(Piece(text.count("\n", 0, at) + 1, plain))
        if begin < 0:
            return pieces
        at, trim = _action(text, inside, right, line, pieces)


def _action(text: str, inside: int, right: str, line: int, pieces: list[Piece]) -> tuple[int, bool]:
    """Add an action, unless it is a comment; return where it ends, and whether what follows is trimmed."""
    start = inside + len(text[inside:]) - len(text[inside:].lstrip(_SPACE))
    if text.startswith("/*", start):
        end = text.find("*/", start)
        if end < 0:
            raise NotGo(line, "has a comment that does not end")
        at, tokens = end + 2, None
    else:
        at, tokens = _tokens(text, inside, right, line)
    rest = text[at:]
    close = rest.lstrip(_SPACE)
    trim = close.startswith("-" + right)
    if not (trim or close.startswith(right)):
        raise NotGo(line, "has an action that does not end")
    if tokens is not None:
        pieces.append(Piece(line, "", tuple(tokens)))
    return at + len(rest) - len(close) + len(right) + trim, trim


def _tokens(text: str, at: int, right: str, line: int) -> tuple[int, list[Token]]:
    found: list[Token] = []
    spaced = True
    while not text.startswith(right, at) and not (spaced and text.startswith("-" + right, at)):
        token = _TOKEN.match(text, at)
        if token is None or token.lastgroup is None:
            raise NotGo(line, f"has an action that {'cannot be read' if at < len(text) else 'does not end'}")
        if token.lastgroup != "space":
            found.append(Token(token.lastgroup, token[0], spaced))
        spaced = token.lastgroup == "space"
        at = token.end()
    return at, found
