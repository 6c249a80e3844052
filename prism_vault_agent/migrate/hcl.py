"""Reads HCL 1, the language of Vault Agent's and consul-template's configuration, with the line of everything. Pure.

https://github.com/hashicorp/hcl/tree/hcl1: assignments, blocks, strings, heredocs, numbers, booleans, lists, objects, comments.
An interpolation (``${...}``) is a part of its string, as those programs take it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST: Final = 32
_SPACE: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_NUMBER: Final = re.compile(r"-?(?:0x[0-9A-Fa-f]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_HEREDOC: Final = re.compile(r"<<(-?)([A-Za-z0-9_]+)\r?\n(.*?)^([ \t]*)\2\r?(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_ESCAPE: Final = re.compile(r"\\(?:([abfnrtv\\\"])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3}))")
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_WORDS: Final = {"true": True, "false": False}


class NotHcl(ValueError):
    """What cannot be read, and the ``line`` of it."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


@dataclass(frozen=True, slots=True)
class Item:
    """An assignment, or a block with its labels; ``value`` is a ``Body`` for a block, ``line`` where the value begins."""

    name: str
    labels: tuple[str, ...]
    value: Any
    line: int


@dataclass(frozen=True, slots=True)
class Body:
    """What stands in a block, an object, or the file, in its order."""

    items: tuple[Item, ...]

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the items."""
        return iter(self.items)

    def get(self, name: str) -> Item | None:
        """Return the last item of a name, which is the one that counts."""
        return next((item for item in reversed(self.items) if item.name == name), None)


def parse(text: str) -> Body:
    """Return the body of a file. Raises :class:`NotHcl`."""
    return _Reader(text).body(end="")


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def body(self, end: str) -> Body:
        """Read items until ``end``, a brace or the end of the text."""
        items: list[Item] = []
        while True:
            self._skip()
            if not end and self._at == len(self._text):
                return Body(tuple(items))
            if end and self._take(end):
                return Body(tuple(items))
            items.append(self._item())
            self._skip()
            self._take(",")

    def _item(self) -> Item:
        names = [self._key()]
        self._skip()
        if self._take("=") or self._take(":"):
            self._skip()
            return Item(names[0], (), line=self._line(), value=self._value())
        while self._peek() not in ("{", ""):
            names.append(self._key())
            self._skip()
        line = self._line()
        if not self._take("{"):
            raise self._wrong("ends within a block")
        return Item(names[0], tuple(names[1:]), self._below(lambda: self.body("}")), line)

    def _key(self) -> str:
        if self._peek() == '"':
            return self._string()
        if (found := _NAME.match(self._text, self._at)) is None:
            raise self._wrong("has no name where one is expected" if self._peek() else "ends too early")
        self._at = found.end()
        return found[0]

    def _value(self) -> Any:
        mark = self._peek()
        if mark == '"':
            return self._string()
        if mark == "<":
            return self._heredoc()
        if self._take("{"):
            return self._below(lambda: self.body("}"))
        if self._take("["):
            return self._below(self._list)
        if (number := _NUMBER.match(self._text, self._at)) is not None:
            self._at = number.end()
            return int(number[0], 0) if re.fullmatch(r"-?(?:0x[0-9A-Fa-f]+|0|[1-9]\d*)", number[0]) else float(number[0])
        word = _NAME.match(self._text, self._at)
        if word is None or word[0] not in _WORDS:
            raise self._wrong("has no value where one is expected" if mark else "ends too early")
        self._at = word.end()
        return _WORDS[word[0]]

    def _list(self) -> list[Any]:
        found: list[Any] = []
        while True:
            self._skip()
            if self._take("]"):
                return found
            found.append(self._value())
            self._skip()
            if not self._take(",") and self._peek() != "]":
                raise self._wrong("has a list without a comma or an end")

    def _string(self) -> str:
        """Read a string; a quote or a line end within ``${...}`` does not end it."""
        start, braces = self._at, 0
        at = start + 1
        while at < len(self._text):
            mark = self._text[at]
            if mark == '"' and not braces:
                self._at = at + 1
                return self._unescaped(self._text[start + 1 : at])
            if mark == "\n" and not braces:
                break
            if self._text.startswith("${", at):
                braces, at = braces + 1, at + 1
            elif mark in "{}" and braces:
                braces += 1 if mark == "{" else -1
            elif mark == "\\":
                at += 1
            at += 1
        raise self._wrong("has a string that does not end")

    def _unescaped(self, raw: str) -> str:
        parts, at = [], 0
        while (slash := raw.find("\\", at)) >= 0:
            found = _ESCAPE.match(raw, slash)
            if found is None:
                raise self._wrong("has a string with an escape that there is not")
            single, *numbers, octal = found.groups()
            code = next((int(each, 16) for each in numbers if each), int(octal or "0", 8))
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise self._wrong("has a string with a character that there is not")
            parts += [raw[at:slash], _ESCAPED[single] if single else chr(code)]
            at = found.end()
        return "".join([*parts, raw[at:]])

    def _heredoc(self) -> str:
        found = _HEREDOC.match(self._text, self._at)
        if found is None or (found[4] and not found[1]):
            raise self._wrong("has a heredoc that does not end")
        self._at = found.end()
        lines = found[3].split("\n")
        if found[1] and all(line.startswith(found[4]) for line in lines[:-1]):
            lines = [line.removeprefix(found[4]) for line in lines]
        return "\n".join(lines)

    def _below(self, read: Any) -> Any:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong("is nested too deeply")
        found = read()
        self._depth -= 1
        return found

    def _skip(self) -> None:
        if (found := _SPACE.match(self._text, self._at)) is not None:
            self._at = found.end()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, mark: str) -> bool:
        taken = self._text.startswith(mark, self._at)
        self._at += len(mark) * taken
        return taken

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _wrong(self, what: str) -> NotHcl:
        return NotHcl(self._line(), what)
