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
    kinds = set(map(type, values))
    if float in kinds:
        return True
    if dict in kinds or list in kinds:
        return any(
            _has_float(value.values() if type(value) is dict else value) for value in values if type(value) in (dict, list)
        )
    return False
