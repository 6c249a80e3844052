"""The forms in which a value may be printed: as it is, encoded, escaped, line by line. Pure."""

import binascii

SHORTEST = 8  # bytes: what is shorter stands in ordinary output by chance
_WIDTHS = (76, 64)  # of lines of base64: MIME's (RFC 2045) and base64(1)'s, PEM's (RFC 7468)
_HTML = {
    letter.encode(): b"\\u%04x" % ord(letter) for letter in "<>&\u2028\u2029"
}  # what Go escapes in JSON, for HTML and scripts
_DELETE = 127  # Python's escapes it where it escapes all but ASCII, others leave it
_ESCAPES = {8: b"\\b", 9: b"\\t", 10: b"\\n", 12: b"\\f", 13: b"\\r", 34: b'\\"', 92: b"\\\\"}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986


def forms(value: bytes) -> set[bytes]:
    """Return the forms of a value that are long enough to be told from ordinary output; none of a value that is not."""
    if len(value) < SHORTEST:
        return set()
    found = {value, value.replace(b"\n", b"\r\n"), *lines(value), *base64(value), *urls(value), *json(value)}
    found |= {binascii.hexlify(value), binascii.hexlify(value).upper()}
    return {form for form in found if len(form) >= SHORTEST}


def lines(value: bytes) -> set[bytes]:
    """Return the lines of a value that has several, but not PEM's first and last, nor those that are little but space."""
    every = [line.strip(b"\r") for line in value.split(b"\n")]
    telling = [line for line in every if not line.startswith(b"-----") and len(b"".join(line.split())) >= SHORTEST]
    return set(telling) if len(every) > 1 else set()


def base64(value: bytes) -> set[bytes]:
    """Return what stands in the base64 of any text with the value in it: at each of three offsets, in both alphabets.

    Of the value alone it is all of it, with the padding, and each of the lines that it is broken into, a newline after it or not.
    """
    found = set()
    for before in range(3):
        encoded = binascii.b2a_base64(bytes(before) + value, newline=False)
        found.add(encoded[-(-before * 8 // 6) : (before + len(value)) * 8 // 6])
    alone = binascii.b2a_base64(value, newline=False)
    found.add(alone)
    for text, width in ((text, width) for text in (alone, alone[: len(value) * 8 // 6]) for width in _WIDTHS):
        found |= {text[at : at + width] for at in range(0, len(text), width)}
    return found | {form.replace(b"+", b"-").replace(b"/", b"_") for form in found}


def urls(value: bytes) -> set[bytes]:
    """Return the value as a part of a URL (RFC 3986) and of a form, with digits of either case, ``/`` kept or not."""
    found = set()
    for safe in (_UNRESERVED, _UNRESERVED | {47}):
        for pattern in (b"%%%02X", b"%%%02x"):
            encoded = b"".join([bytes((byte,)) if byte in safe else pattern % byte for byte in value])
            found |= {encoded, encoded.replace(b"%20", b"+")}
    return found


def json(value: bytes) -> set[bytes]:
    """Return the value within a JSON string (RFC 8259): with and without other letters than ASCII escaped, ``/``, or HTML's."""
    plain = b"".join([_ESCAPES.get(byte) or (b"\\u%04x" % byte if byte < 32 else bytes((byte,))) for byte in value])
    found = variants(plain)
    try:
        letters = plain.decode()
    except UnicodeDecodeError:
        return found
    escaped = b""
    for letter in letters:
        wide = letter.encode("utf-16-be")
        units = [wide[at : at + 2] for at in range(0, len(wide), 2)]
        escaped += letter.encode() if letter.isascii() else b"".join([b"\\u" + binascii.hexlify(unit) for unit in units])
    return found | variants(escaped) | variants(escaped.replace(bytes((_DELETE,)), b"\\u%04x" % _DELETE))


def variants(escaped: bytes) -> set[bytes]:
    """Return what else is as good in a JSON string, with what was ``escaped`` itself."""
    html = escaped
    for plain, instead in _HTML.items():
        html = html.replace(plain, instead)
    return {escaped, escaped.replace(b"/", b"\\/"), html}
