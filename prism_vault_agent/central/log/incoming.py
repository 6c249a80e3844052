"""An event as it comes in: canonical bytes, and fields of the shapes that ``audit/event.py`` states. None is believed yet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from prism_vault_agent.audit.event import digest, parse

LARGEST_EVENT: Final = 256 * 1024
LONGEST_NAME: Final = 256
LONGEST_TEXT: Final = 1024
MOST_SCOPES: Final = 1024
LARGEST_NUMBER: Final = 2**53

FROM_AGENTS: Final = frozenset({"reserved", "success", "denied", "failure", "cleared", "admin"})
_KINDS: Final = FROM_AGENTS | {"abandoned", "policy"}
_ID: Final = re.compile(r"[0-9a-f]{32}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class Malformed(ValueError):
    """The bytes are not an event. ``event_id`` is what they say it is, where it has the shape of one."""

    def __init__(self, message: str, event_id: str = "") -> None:
        super().__init__(message)
        self.event_id = event_id


@dataclass(frozen=True, slots=True)
class Event:
    """A well-formed event: the columns as their bytes say, and the fields behind them."""

    body: bytes
    hash: str
    event_id: str
    reservation: str
    host: str
    epoch: str
    seq: int
    prev: str
    kind: str
    fields: dict[str, Any]


def read(body: bytes) -> Event:
    """Return the event that ``body`` holds. Raises :class:`Malformed` saying which rule it breaks, never what it holds."""
    if len(body) > LARGEST_EVENT:
        raise Malformed("an event has at most 256 KiB")
    try:
        fields: dict[str, Any] = parse(body)
    except (ValueError, RecursionError):
        message = "an event is one canonical JSON object: sorted keys, each once, no spaces, no floating point numbers"
        raise Malformed(message) from None
    event_id = fields.get("event_id")
    if not (isinstance(event_id, str) and _ID.fullmatch(event_id)):
        raise Malformed("event_id is not 32 hex digits")
    for name, good in _shape(fields):
        if not good:
            raise Malformed(f"{name} is missing or has the wrong shape", event_id)
    return Event(
        body=body,
        hash=digest(body),
        event_id=event_id,
        reservation=fields["reservation"],
        host=fields["host"],
        epoch=fields["epoch"],
        seq=fields["seq"],
        prev=fields["prev"],
        kind=fields["kind"],
        fields=fields,
    )


def _shape(fields: dict[str, Any]) -> tuple[tuple[str, bool], ...]:
    """Return each field that central reads, and whether it has its shape."""
    get = fields.get
    seq = get("seq")
    caller = get("caller")
    reserved = get("kind") == "reserved"
    return (
        ("v", _number(get("v")) and get("v") == 1),
        ("kind", isinstance(get("kind"), str) and get("kind") in _KINDS),
        ("reservation", _is(_ID, get("reservation"))),
        ("host", _text(get("host"), LONGEST_NAME)),
        ("epoch", _is(_ID, get("epoch"))),
        ("seq", _number(seq) and seq > 0),
        ("prev", _is(_HASH, get("prev"))),
        ("at", _number(get("at"))),
        ("boot_ms", _number(get("boot_ms"))),
        ("project", _text(get("project"), LONGEST_NAME) if reserved else _maybe(get("project"), LONGEST_NAME)),
        (
            "environment",
            _text(get("environment"), LONGEST_NAME) if reserved else _maybe(get("environment"), LONGEST_NAME),
        ),
        ("scopes", _names(get("scopes", None if reserved else []))),
        ("purpose", _text(get("purpose"), LONGEST_NAME) if reserved else _maybe(get("purpose"), LONGEST_NAME)),
        ("caller", isinstance(caller, dict) or (caller is None and not reserved)),
        ("caller.kind", not reserved or (isinstance(caller, dict) and _text(caller.get("kind"), LONGEST_NAME))),
        ("run_ref", _maybe(get("run_ref"), LONGEST_NAME)),
        ("job_id", _maybe(get("job_id"), LONGEST_NAME)),
        ("reason", _maybe(get("reason"), LONGEST_NAME)),
        ("message", _maybe(get("message"), LONGEST_TEXT)),
        ("installation", get("installation") is None or _is(_ID, get("installation"))),
        ("signal", get("signal") is None or _number(get("signal"))),
    )


def _is(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _number(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < LARGEST_NUMBER


def _text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest


def _maybe(value: object, longest: int) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= longest)


def _names(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MOST_SCOPES and all(_text(name, LONGEST_NAME) for name in value)
