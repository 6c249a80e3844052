"""The OpenAPI document as a whole: what FastAPI says of its routes, those that are plain ASGI, and what holds for all of them."""

from __future__ import annotations

from typing import Any, Final

from prism_vault_agent.central.access.permission import needs
from prism_vault_agent.central.http.appending import BATCH, FINALIZE, MOST_EVENTS, RESERVATIONS
from prism_vault_agent.central.http.codes import CODES
from prism_vault_agent.central.http.orders import SIGNAL_SCHEMAS
from prism_vault_agent.central.http.schema import (
    PROBLEM,
    REQUEST_ID,
    TEXT,
    WHOLE,
    YES_OR_NO,
    answers,
    array,
    component,
    hexadecimal,
    maybe,
    problem_schema,
    record,
    shared_problems,
    told,
)
from prism_vault_agent.central.http.signals import PATH as SIGNALS

REASONS: Final = sorted(name for name, code in CODES.items() if code.of_event)
_RESULT_OF_EVENT: Final = {
    "status": {"type": "integer", "description": "as HTTP knows it; 424 behind a refused event"},
    "appended": told(YES_OR_NO, "the event is on the log, now or since an earlier request"),
    "event_id": TEXT,
    "audit_id": told(TEXT, "pva_ and the reservation's id"),
    "n": told(maybe(WHOLE), "index on the log"),
    "received_at": told(maybe(WHOLE), "when it came, milliseconds since 1970; part of its leaf"),
    "hash": told(TEXT, "SHA-256 of the event's bytes"),
    "leaf": told(TEXT, "hash of the event's leaf in the log's tree"),
    "reason": {"type": "string", "enum": ["", *REASONS], "description": "empty on success"},
    "message": TEXT,
    "ended_by": told(TEXT, "409 reservation_ended: the kind that ended the reservation"),
    "head": told(record({"seq": WHOLE, "hash": hexadecimal(32)}), "409 chain: where the chain of this host and epoch stands"),
}
_OPTIONAL: Final = ("ended_by", "head")
_RECEIPT: Final = told(
    maybe(
        record(
            {
                "origin": told(TEXT, "the name of the key"),
                "at": told(WHOLE, "milliseconds since 1970"),
                "signature": told(TEXT, "base64 of the Ed25519 signature"),
            }
        )
    ),
    "central's signature for the rows of the answer; null where there are none, or the key cannot be used now",
)
_SCHEMAS: Final = {
    PROBLEM: problem_schema(),
    "Receipt": _RECEIPT,
    "Result": record(_RESULT_OF_EVENT, optional=_OPTIONAL),
    "OneResult": record({**_RESULT_OF_EVENT, "receipt": component("Receipt")}, optional=_OPTIONAL),
    "RefusedEvent": {
        "description": "what a problem has besides where it is about one event",
        "type": "object",
        "properties": {
            **{name: schema for name, schema in _RESULT_OF_EVENT.items() if name != "status"},
            "receipt": component("Receipt"),
        },
    },
}
_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "one event as canonical JSON: sorted keys, no spaces, no floating point numbers; at most 256 KiB",
    "required": ["v", "kind", "event_id", "reservation", "host", "epoch", "seq", "prev", "at", "boot_ms"],
    "properties": {
        "v": {"const": 1},
        "kind": TEXT,
        **dict.fromkeys(("event_id", "reservation", "epoch"), hexadecimal(16)),
        "host": TEXT,
        "seq": {**WHOLE, "minimum": 1},
        "prev": hexadecimal(32),
        "at": WHOLE,
        "boot_ms": WHOLE,
    },
}
_BATCH: Final = {
    "type": "object",
    "required": ["events"],
    "properties": {"events": array(told(TEXT, "one event as canonical JSON"), minItems=1, maxItems=MOST_EVENTS)},
}
_RESERVATION: Final = {
    "name": "reservation",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^(pva_)?[0-9a-f]{32}$"},
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return FastAPI's ``document`` with the routes that are not FastAPI's, the problems, and the credential."""
    document["paths"] |= _append_paths() | _signal_paths()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method == "parameters":
                continue
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]  # FastAPI's own answer to a bad query; ours is a problem 400
            need = needs(path)[method.upper()]
            if need is not None:
                operation["security"] = [{"bearer": []}, {"certificate": []}, *([{}] if need.loopback else [])]
    schemas = document.get("components", {}).get("schemas", {})
    bodies = {name: schema for name, schema in schemas.items() if "ValidationError" not in name}
    document["components"] = {
        "schemas": {**bodies, **_SCHEMAS, **SIGNAL_SCHEMAS},
        "responses": shared_problems(),
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "an identity token of the issuer, or a service token"},
            "certificate": {
                "type": "mutualTLS",
                "description": "a client certificate, where central has [mtls]; alone, or beside",
            },
        },
    }
    return document


def _append_paths() -> dict[str, Any]:
    """Return the ``paths`` of the three routes that append."""
    batch = record({"results": array(component("Result")), "receipt": component("Receipt")})
    one = {200: component("OneResult"), 201: component("OneResult")}
    of_one = (*REASONS, "other_kind", "busy")
    also = component("RefusedEvent")
    return {
        BATCH: {
            "post": _operation(
                "Append events of one host in order, in one transaction",
                _BATCH,
                answers({200: batch}, "malformed", "too_large", "busy"),
            )
        },
        RESERVATIONS: {"post": _operation("Append one reserved event", _EVENT, answers(one, *of_one, also=also))},
        f"{RESERVATIONS}/{{reservation}}{FINALIZE}": {
            "post": _operation(
                "Append the event that ends a reservation", _EVENT, answers(one, *of_one, "other_reservation", also=also)
            ),
            "parameters": [_RESERVATION],
        },
    }


def _signal_paths() -> dict[str, Any]:
    """Return the ``paths`` of the stream of signals."""
    stream = {"description": "server-sent events, without end", "headers": REQUEST_ID, "content": {"text/event-stream": {}}}
    ahead = answers({}, "ahead", common=(), also={"type": "object", "required": ["last"], "properties": {"last": WHOLE}})
    operation: dict[str, Any] = {
        "tags": ["signals"],
        "summary": "Follow the rotations, revocations and changes of policy that concern the caller",
        "parameters": [
            {"name": "Last-Event-ID", "in": "header", "schema": WHOLE, "description": "begin behind this id"},
            {"name": "after", "in": "query", "schema": WHOLE, "description": "the same, where there is no header"},
            {
                "name": "epoch",
                "in": "query",
                "schema": hexadecimal(16),
                "description": "without an id: begin where this start of the caller's agent began; else the stream begins now",
            },
        ],
        "responses": {str(status): answer for status, answer in ({200: stream} | answers({}, "query") | ahead).items()},
    }
    return {SIGNALS: {"get": operation}}


def _operation(summary: str, body: dict[str, Any], responses: dict[int | str, Any]) -> dict[str, Any]:
    return {
        "tags": ["audit"],
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {str(status): answer for status, answer in responses.items()},
    }
