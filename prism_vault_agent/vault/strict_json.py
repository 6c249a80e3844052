"""JSON as a provider may answer it, read strictly. Pure.

RFC 8259 leaves duplicate names, NaN and non-UTF-8 texts to the reader; here all of them are refused, because two readers that
differ on them see two different secrets.
"""

from __future__ import annotations

import json

from prism_vault_agent.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Number(str):
    """A JSON number in the digits the server wrote: ``1.10`` stays ``1.10`` and ``1e400`` does not become infinity."""

    __slots__ = ()


def parse(body: bytes, *, exact_numbers: bool = False) -> dict[str, Any]:
    """Return the JSON object in ``body``; with ``exact_numbers`` its numbers are :class:`Number`.

    Raises :class:`ProtocolError` for anything else. The message never quotes the body.
    """
    decoder = _EXACT if exact_numbers else _PLAIN
    try:
        found = decoder.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):  # also UnicodeDecodeError, JSONDecodeError, and integers beyond int's limit
        raise ProtocolError("the answer is not well-formed JSON", reason="malformed_answer") from None
    if not isinstance(found, dict):
        raise ProtocolError("the answer is JSON, but not an object", reason="malformed_answer")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _constant(_name: str) -> Any:
    raise ValueError("not a JSON number")


_PLAIN = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
_EXACT = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=Number, parse_float=Number)
