"""What OpenAPI says about the routes that are not FastAPI's own (see ``appending.py``)."""

from __future__ import annotations

from typing import Any, Final

from prism_vault_agent.central.http.appending import BATCH, FINALIZE, MOST_EVENTS, RESERVATIONS

_RESULT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["status", "appended", "event_id", "audit_id", "n", "hash", "leaf", "reason", "message"],
    "properties": {
        "status": {"type": "integer", "description": "as HTTP knows it; 424 behind a refused event"},
        "appended": {"type": "boolean", "description": "the event is on the log, now or since an earlier request"},
        "event_id": {"type": "string"},
        "audit_id": {"type": "string", "description": "pva_ and the reservation's id"},
        "n": {"type": ["integer", "null"], "description": "index on the log"},
        "hash": {"type": "string", "description": "SHA-256 of the event's bytes"},
        "leaf": {"type": "string", "description": "hash of the event's leaf in the log's tree"},
        "reason": {"type": "string", "description": "a stable word, empty on success"},
        "message": {"type": "string"},
        "received_at": {"type": ["integer", "null"], "description": "when it came, milliseconds since 1970; part of its leaf"},
        "ended_by": {"type": "string", "description": "409: the kind that ended the reservation"},
        "head": {
            "type": "object",
            "description": "409 chain: where the chain of this host and epoch stands",
            "properties": {"seq": {"type": "integer"}, "hash": {"type": "string"}},
        },
    },
}
_RECEIPT: Final[dict[str, Any]] = {
    "type": ["object", "null"],
    "description": "central's signature for the rows of the answer; null where there are none, or the key cannot be used now",
    "required": ["origin", "at", "signature"],
    "properties": {
        "origin": {"type": "string", "description": "the name of the key"},
        "at": {"type": "integer", "description": "milliseconds since 1970"},
        "signature": {"type": "string", "description": "base64 of the Ed25519 signature"},
    },
}
_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "one event as canonical JSON: sorted keys, no spaces, no floating point numbers; at most 256 KiB",
    "required": ["v", "kind", "event_id", "reservation", "host", "epoch", "seq", "prev", "at", "boot_ms"],
}
_BATCH: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["events"],
    "properties": {
        "events": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_EVENTS,
            "items": {"type": "string"},
        }
    },
}
_RESULTS: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["results", "receipt"],
    "properties": {"results": {"type": "array", "items": _RESULT}, "receipt": _RECEIPT},
}
_ONE: Final[dict[str, Any]] = {
    **_RESULT,
    "required": [*_RESULT["required"], "receipt"],
    "properties": {**_RESULT["properties"], "receipt": _RECEIPT},
}


def append_paths() -> dict[str, Any]:
    """Return the ``paths`` of the three routes that append."""
    parameter = {"name": "reservation", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        BATCH: {"post": _operation("Append events of one host in order, in one transaction", _BATCH, {"200": _RESULTS})},
        RESERVATIONS: {"post": _operation("Append one reserved event", _EVENT, {"201": _ONE})},
        f"{RESERVATIONS}/{{reservation}}{FINALIZE}": {
            "post": _operation("Append the event that ends a reservation", _EVENT, {"200": _ONE}),
            "parameters": [parameter],
        },
    }


def _operation(summary: str, body: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
    problem = {"description": "a problem (RFC 9457) with a stable code", "content": {"application/problem+json": {}}}
    return {
        "tags": ["audit"],
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            **{
                status: {"description": "durable", "content": {"application/json": {"schema": schema}}}
                for status, schema in answers.items()
            },
            "default": problem,
        },
    }
