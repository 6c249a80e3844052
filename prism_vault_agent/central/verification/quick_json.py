"""JSON by orjson where it is installed, which is with the extra "central"; else by the standard library, which takes longer."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.audit.event import parse

if TYPE_CHECKING:
    from collections.abc import Iterable

orjson: Final[Any] = importlib.import_module("orjson") if importlib.util.find_spec("orjson") else None


def dumps(value: Any) -> bytes:
    """Return compact JSON."""
    dumped: bytes = orjson.dumps(value) if orjson else json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return dumped


def loads(data: bytes) -> Any:
    """Return what JSON holds. Raises ``ValueError`` or ``RecursionError``."""
    return orjson.loads(data) if orjson else json.loads(data)


def canonical_fields(body: bytes) -> dict[str, Any]:
    """Return the fields of an event's canonical bytes, as ``audit.event.parse`` does. Raises what that raises for others."""
    if orjson:
        try:
            fields: Any = orjson.loads(body)
        except orjson.JSONDecodeError:
            fields = None
        # Both write the same, but for floating point numbers, which have no canonical form. What one of them cannot read, the
        # other one may: whole numbers of more than 64 bits.
        if type(fields) is dict and orjson.dumps(fields, option=orjson.OPT_SORT_KEYS) == body and not _has_float(fields.values()):
            found: dict[str, Any] = fields
            return found
    return parse(body)


def _has_float(values: Iterable[Any]) -> bool:
    for value in values:
        kind = type(value)
        if kind is float or (kind is dict and _has_float(value.values())) or (kind is list and _has_float(value)):
            return True
    return False
