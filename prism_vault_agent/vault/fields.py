"""Fields of an answer, taken with their type. Pure. Each raises :class:`ProtocolError` that names the field, not its value."""

from __future__ import annotations

from prism_vault_agent.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Ten years: longer than anything is kept, short enough to be added to any clock.
LONGEST_SECONDS = 315_360_000


def mapping(data: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """Return the object called ``name``."""
    found = (data or {}).get(name)
    if not isinstance(found, dict):
        raise _wrong(name, "an object")
    return found


def text(data: dict[str, Any], name: str, default: str | None = None) -> str:
    """Return the string called ``name``; ``default``, where given, stands for one that is missing or null."""
    found = data.get(name)
    if found is None and default is not None:
        return default
    if not isinstance(found, str):
        raise _wrong(name, "a string")
    return found


def texts(data: dict[str, Any], name: str) -> tuple[str, ...]:
    """Return the list of strings called ``name``; missing or null is empty."""
    found = data.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise _wrong(name, "a list of strings")
    return tuple(found)


def flag(data: dict[str, Any], name: str) -> bool:
    """Return the boolean called ``name``; missing or null is False."""
    found = data.get(name) or False
    if not isinstance(found, bool):
        raise _wrong(name, "a boolean")
    return found


def seconds(data: dict[str, Any], name: str) -> int:
    """Return the duration called ``name`` in whole seconds, at most ten years; 0 is the server's word for "never ends"."""
    found = data.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise _wrong(name, "a number of seconds")
    return min(found, LONGEST_SECONDS)


def duration(data: dict[str, Any], name: str) -> int:
    """Return a duration of an answer whose numbers are kept as the server wrote them, at most ten years; missing is 0."""
    try:
        return min(int(str(data.get(name) or 0)), LONGEST_SECONDS)
    except ValueError:
        raise _wrong(name, "a number of seconds") from None


def _wrong(name: str, what: str) -> ProtocolError:
    return ProtocolError(f"the answer's field {name} is not {what}", reason="malformed_answer")
