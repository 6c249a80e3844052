"""JSON by the scanner and the encoder that ``json`` itself is made of, without the 10 ms that importing ``json`` takes."""

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Settings:
    """What the scanner takes for its decoder: the settings of ``json.loads``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: "dict[str, str]" = {}  # noqa: RUF012 - never changed here


_scan = _json.make_scanner(_Settings)  # type: ignore[arg-type]  # typeshed says itself, where it takes a decoder
_BLANK = " \t\n\r"


def decoded(text: bytes) -> "Any":
    """Return what a JSON text in UTF-8 says. Raises ``ValueError``."""
    told = text.decode().strip(_BLANK)
    try:
        value, end = _scan(told, 0)
    except StopIteration:
        raise ValueError("this is not JSON") from None
    if end != len(told):
        raise ValueError("it goes on after its end")
    return value


def encoded(value: "Any") -> bytes:
    """Return the JSON of text, true, false, null, and of lists and objects of these."""
    return _text(value).encode()


def _text(value: "Any") -> str:
    if isinstance(value, str):
        return _json.encode_basestring_ascii(value)
    if isinstance(value, dict):
        return "{" + ", ".join([f"{_text(key)}: {_text(each)}" for key, each in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ", ".join([_text(each) for each in value]) + "]"
    return {None: "null", True: "true", False: "false"}[value]
