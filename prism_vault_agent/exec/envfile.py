r"""The reader of ``--env-file``: ``KEY=VALUE`` lines as people write them in ``.env`` files. Nothing is expanded or run.

::

    # a comment                     export may stand before a name
    PLAIN=text up to here # note    spaces around it are cut, a comment starts with a space and '#'
    SINGLE='as it is, \n and $ too'
    DOUBLE="may span lines; \n \r \t \" \\ \$ are escapes, any other backslash is one"
    EMPTY=
"""

import posix

from prism_vault_agent.exec import CONFIG, Failure
from prism_vault_agent.exec.environment import LONGEST_VARIABLE

LONGEST_FILE = 4 * 1024 * 1024

_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
_SPACE = b" \t"
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b'"': b'"', b"\\": b"\\", b"$": b"$"}


def read(path: str) -> dict[bytes, bytes]:
    """Return the variables of the file at ``path``. Raises ``Failure`` (78) naming file and line."""
    try:
        content = read_whole(path, LONGEST_FILE)
    except OSError as error:
        raise Failure(CONFIG, f"cannot read the env file {path!a}: {error.strerror}; check --env-file") from None
    try:
        return parse(content)
    except _Wrong as wrong:
        raise Failure(CONFIG, f"{ascii(path)[1:-1]}:{wrong.line}: {wrong}; mend the line") from None


def read_whole(path: str, longest: int) -> bytes:
    """Return what the file holds, and one byte of what is over ``longest``. Raises ``OSError``."""
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        parts = []
        size = 0
        while size <= longest and (part := posix.read(descriptor, min(65_536, longest + 1 - size))):
            parts.append(part)
            size += len(part)
        return b"".join(parts)
    finally:
        posix.close(descriptor)


def parse(content: bytes) -> dict[bytes, bytes]:
    """Return the variables of an env file's content; of a name that is there twice the last counts."""
    if len(content) > LONGEST_FILE:
        raise _Wrong(1, f"the file is longer than {LONGEST_FILE} bytes")
    lines = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
    variables = {}
    at = 0
    while at < len(lines):
        line = lines[at].strip(_SPACE)
        first = at + 1
        at += 1
        if not line or line.startswith(b"#"):
            continue
        name, equals, value = line.partition(b"=")
        name = _name(name, first) if equals else b""
        if not name:
            raise _Wrong(first, "a line is neither NAME=value nor a comment")
        value = value.lstrip(_SPACE)
        if value.startswith(b'"'):
            while _end_of_double(value) < 0:
                if at == len(lines):
                    raise _Wrong(first, "the double quote is never closed")
                value += b"\n" + lines[at]
                at += 1
        value = _value(value, first)
        if b"\0" in value:
            raise _Wrong(first, "a value holds a NUL byte")
        if len(name) + len(value) + 2 > LONGEST_VARIABLE:
            raise _Wrong(first, f"a variable is over {LONGEST_VARIABLE - 2} bytes, more than a process can be given")
        variables[name] = value
    return variables


class _Wrong(Exception):
    """What is wrong with which line, counted from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def _name(text: bytes, line: int) -> bytes:
    """Return the name that stands before the equals sign."""
    name = (text[7:] if text[:7] in (b"export ", b"export\t") else text).strip(_SPACE)
    if not name or name[:1] not in _letters() or name.strip(_LETTERS + b"0123456789"):
        raise _Wrong(line, "a name is not a letter or underscore followed by letters, digits and underscores")
    return name


def _letters() -> list[bytes]:
    return [_LETTERS[at : at + 1] for at in range(len(_LETTERS))]


def _value(text: bytes, line: int) -> bytes:
    """Return what ``text`` stands for: quoted, or plain up to its comment."""
    quote = text[:1]
    if quote not in (b'"', b"'"):
        return _before_comment(text)
    end = _end_of_double(text) if quote == b'"' else text.find(b"'", 1)
    if end < 0:
        raise _Wrong(line, "the single quote is not closed on its line")
    rest = text[end + 1 :]
    if rest.strip(_SPACE) and not (rest[:1] in (b" ", b"\t") and rest.lstrip(_SPACE).startswith(b"#")):
        raise _Wrong(line, "there is text behind the closing quote")
    return text[1:end] if quote == b"'" else _unescape(text[1:end])


def _before_comment(text: bytes) -> bytes:
    """Return a plain value: without the comment behind it and the space around it."""
    if text.startswith(b"#"):
        return b""
    ends = [at for at in (text.find(b" #"), text.find(b"\t#")) if at >= 0]
    return text[: min(ends, default=len(text))].rstrip(_SPACE + b"\r")


def _end_of_double(text: bytes) -> int:
    """Return where the double quote that starts ``text`` is closed, or -1."""
    at = 1
    while True:
        end = text.find(b'"', at)
        escape = text.find(b"\\", at)
        if escape < 0 or end < escape:
            return end
        at = escape + 2


def _unescape(text: bytes) -> bytes:
    """Return the inside of double quotes with its escapes replaced."""
    parts = text.split(b"\\")
    told = [parts[0]]
    at = 1
    while at < len(parts):
        part = parts[at]
        if part:
            told.append(_ESCAPES.get(part[:1], b"\\" + part[:1]) + part[1:])
        elif at + 1 < len(parts):
            at += 1
            told.append(b"\\" + parts[at])
        at += 1
    return b"".join(told)
