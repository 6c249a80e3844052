"""How a value in Vault becomes text. Pure.

The rule: a string is itself; anything else is its JSON text, without spaces between its parts. So a number has the digits
that the server wrote (``8200``, ``1.10``, ``1e400``), a boolean is ``true`` or ``false``, null is ``null``, and a list or an
object is compact JSON in the server's order, its non-ASCII letters as they are. (KV version 2 of OpenBao 2.7 keeps numbers as
64-bit floats and answers ``1.10`` with ``1.1``: store what must keep its digits as a string.)
"""

from __future__ import annotations

from json.encoder import encode_basestring

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.vault.strict_json import Number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def as_text(value: Any, told: str) -> str:
    """Return ``value``, as :func:`strict_json.parse` with exact numbers gave it, as the text that is delivered.

    ``told`` is the reference that an error names. Raises :class:`ConfigError` where the value is nested deeper than the
    interpreter can follow.
    """
    if isinstance(value, str):
        return str(value)
    try:
        return _json(value)
    except RecursionError:
        raise ConfigError(f"{told}: the value is nested too deeply", mend="store it as a string") from None


def _json(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{encode_basestring(name)}:{_json(part)}" for name, part in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([_json(part) for part in value]) + "]"
    if value is None:
        return "null"
    return "true" if value else "false"
