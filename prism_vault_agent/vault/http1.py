"""Reading one HTTP/1.1 response, strictly (RFC 9112), from whatever gives the bytes. Pure but for that.

Not ``http.client``: its header parser is that of e-mail, which costs more time than the server takes for the answer, and its
import costs more than the rest of direct mode (docs/adr/0021).
"""

from __future__ import annotations

import re

from prism_vault_agent.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_BODY = 6656 * 1024  # a value of 1 MiB, every character of it escaped as \uXXXX, and its envelope
LARGEST_HEAD = 64 * 1024
MOST_INTERIM = 8
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class Reply:
    """What came back: status, headers by lower-case name, the whole body, and whether the connection ends with it."""

    __slots__ = ("body", "headers", "last", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes, *, last: bool) -> None:
        """Hold the parts."""
        self.status = status
        self.headers = headers
        self.body = body
        self.last = last


def read(receive: Callable[[], bytes], *, bodiless: bool = False) -> Reply:
    """Return the response whose bytes ``receive`` gives in pieces, an empty one at the end; ``bodiless`` is one to HEAD.

    Raises :class:`ConnectionError` where not one byte comes, :class:`ProtocolError` for anything that is not one well-formed
    response of at most LARGEST_BODY, uncompressed; and whatever ``receive`` raises.
    """
    source = _Source(receive)
    for _ in range(MOST_INTERIM):
        minor, status, headers = _head(source)
        if status >= 200:
            break
    else:
        raise _malformed("is not HTTP/1.1")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise _malformed("is compressed, which nobody asked for")
    options = {option.strip() for option in headers.get("connection", "").lower().split(",")}
    last = "close" in options or (minor == b"0" and "keep-alive" not in options)
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if bodiless or status in {204, 304}:
        body = b""
    elif coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise _malformed("has no clear length")
        body = _chunked(source)
    elif length is not None:
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise _malformed("has no clear length")
        body = source.take(int(length))
    else:
        body, last = source.rest(), True
    return Reply(status, headers, body, last=last or source.has_more())


class _Source:
    """The bytes so far, and where more come from."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._held = bytearray()
        self._at = 0
        self._begun = False

    def _more(self) -> bool:
        piece = self._receive()
        self._held += piece
        self._begun = self._begun or bool(piece)
        return bool(piece)

    def until(self, mark: bytes, most: int) -> bytes:
        """Return what comes before ``mark`` and pass both; at most ``most`` bytes."""
        searched = self._at
        while (found := self._held.find(mark, searched)) < 0:
            if len(self._held) - self._at > most:
                raise _malformed("has too long a head")
            searched = max(self._at, len(self._held) - len(mark) + 1)
            if not self._more():
                if not self._begun:
                    raise ConnectionResetError
                raise _malformed("was cut short")
        if found - self._at > most:
            raise _malformed("has too long a head")
        taken = bytes(self._held[self._at : found])
        self._at = found + len(mark)
        return taken

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes and pass them."""
        if count > LARGEST_BODY:
            raise _too_large()
        while len(self._held) - self._at < count:
            if not self._more():
                raise _malformed("was cut short")
        taken = bytes(self._held[self._at : self._at + count])
        del self._held[: self._at + count]
        self._at = 0
        return taken

    def rest(self) -> bytes:
        """Return everything up to the end of the connection."""
        while self._more():
            if len(self._held) - self._at > LARGEST_BODY:
                raise _too_large()
        return self.take(len(self._held) - self._at)

    def has_more(self) -> bool:
        """Tell whether bytes came that belong to no response."""
        return len(self._held) > self._at


def _head(source: _Source) -> tuple[bytes, int, dict[str, str]]:
    first, *lines = source.until(b"\r\n\r\n", LARGEST_HEAD).split(b"\r\n")
    match = _STATUS.fullmatch(first)
    if match is None:
        raise _malformed("is not HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise _malformed("has a malformed header")
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
        known = headers.setdefault(name, value)
        if known is not value:  # a list may be sent in parts (RFC 9110, section 5.3); two lengths may not
            headers[name] = f"{known}, {value}"
    return match[1], int(match[2]), headers


def _chunked(source: _Source) -> bytes:
    body = bytearray()
    while True:
        size = _SIZE.fullmatch(source.until(b"\r\n", LARGEST_HEAD))
        if size is None:
            raise _malformed("has a malformed chunk")
        count = int(size[1], 16)
        if len(body) + count > LARGEST_BODY:
            raise _too_large()
        if count == 0:
            break
        body += source.take(count)
        if source.take(2) != b"\r\n":
            raise _malformed("has a malformed chunk")
    trailers = 0
    while trailer := source.until(b"\r\n", LARGEST_HEAD):
        trailers += len(trailer)
        if trailers > LARGEST_HEAD:
            raise _malformed("has too long a trailer")
    return bytes(body)


def _malformed(how: str) -> ProtocolError:
    return ProtocolError(f"the answer {how}", reason="malformed_answer")


def _too_large() -> ProtocolError:
    return ProtocolError(f"the answer is larger than {LARGEST_BODY} bytes", reason="malformed_answer")
