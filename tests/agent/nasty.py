r"""Values that some reader of environments or environment files gets wrong: one for each known trap, and any number at random."""

from __future__ import annotations

import random
from typing import Final

# Each is read wrongly by some shell, dotenv reader, service manager or container runtime.
TRAPS: Final = {
    "plain": "abcXYZ019_-./:@,+",
    "empty": "",
    "space inside": "a b",
    "leading space": " a",
    "trailing space": "a ",
    "tab": "a\tb",
    "hash glued": "a#b",
    "hash after a space": "a #b",
    "hash first": "#ab",
    "semicolon first": ";ab",
    "dollar name": "a$HOME",
    "dollar braces": "a${HOME}b",
    "two dollars": "a$$b",
    "dollar at the end": "a$",
    "command substitution": "a$(echo x)b",
    "positional parameter": "a$1b",
    "backtick": "a`echo x`b",
    "backslash": "a\\b",
    "backslash n": "a\\nb",
    "two backslashes": "a\\\\b",
    "backslash at the end": "ab\\",
    "backslash dollar": "a\\$b",
    "backslash double quote": 'a\\"b',
    "backslash single quote": "a\\'b",
    "single quote": "a'b",
    "single quote first": "'ab",
    "single quotes around": "'ab'",
    "double quote": 'a"b',
    "double quote first": '"ab',
    "double quotes around": '"ab"',
    "both quotes": "a'b\"c",
    "quotes, dollar, backslash, backtick": "a'b\"c$d\\e`f",
    "newline": "a\nb",
    "newline at the end": "a\n",
    "carriage return": "a\rb",
    "CRLF": "a\r\nb",
    "PEM": "-----BEGIN KEY-----\nMIIB+/=\nAAAA\n-----END KEY-----\n",
    "newline and hash": "a\n#b",
    "newline and assignment": "a\nX=1",
    "glob and operators": "a*?[x]{y}~|&;<>()!b",
    "equals sign": "a=b",
    "percent": "a%h%%b",
    "JSON": '{"a": "b c", "d": [1]}',
    "letters beyond ASCII": "p\u00e4\u20ac\U0001f600",
    "no-break space": "a\xa0b",
    "no-break space at the end": "a\xa0",
    "control character": "a\x01b",
    "DEL": "a\x7fb",
    "escape sequence": "a\x1b[0mb",
    "vertical tab": "a\x0bb",
    "line separator": "a\u2028b",
    "backslash u": "a\\u0041b",
    "byte order mark": "a\ufeffb",
    "tilde": "~",
    "export": "export A",
    "backslash and space at the end": "a\\ ",
    "URL": "postgres://u:p%40ss@h:5432/db?sslmode=require&x=#1",
}

_PIECES: Final[list[str]] = [
    *" \t\n\r'\"`$\\#;=%!&|<>(){}[]*?~^:,./-_+@aZ0",
    *"\x01\x1b\x7f\x85\xa0\u2028\ufeff\u00e4\u0301\u05d0\U0001f600",
    "$(x)",
    "\\n",
]


def at_random(count: int, seed: int) -> list[str]:
    """Return ``count`` strings of nasty pieces and any characters but NUL and surrogates; the same for the same seed."""
    chance = random.Random(seed)

    def piece() -> str:
        if chance.random() < 0.8:
            return chance.choice(_PIECES)
        return chr(chance.choice([chance.randrange(1, 0xD800), chance.randrange(0xE000, 0x110000)]))

    return ["".join(piece() for _ in range(chance.randrange(1, 120))) for _ in range(count)]
