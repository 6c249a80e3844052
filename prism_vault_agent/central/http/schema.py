"""Words for saying what a route takes and gives, as OpenAPI 3.1 (JSON Schema 2020-12) has them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.central.http.codes import ANY_CALLER, CODES

if TYPE_CHECKING:
    from collections.abc import Collection

    Schema = dict[str, Any]

PROBLEM: Final = "Problem"
TEXT: Final[Schema] = {"type": "string"}
WHOLE: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
YES_OR_NO: Final[Schema] = {"type": "boolean"}


def hexadecimal(size: int) -> Schema:
    """Return the schema of ``size`` bytes in hex."""
    return {"type": "string", "pattern": f"^[0-9a-f]{{{2 * size}}}$"}


REQUEST_ID: Final[Schema] = {"X-Request-Id": {"required": True, "schema": hexadecimal(8)}}


def told(schema: Schema, description: str) -> Schema:
    """Return ``schema`` with what it means."""
    return {**schema, "description": description}


def maybe(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {**schema, "type": [schema["type"], "null"]}


def array(items: Schema, **limits: int) -> Schema:
    """Return the schema of a list; ``limits`` are ``minItems`` and ``maxItems``."""
    return {"type": "array", "items": items, **limits}


def record(properties: dict[str, Schema], *, optional: Collection[str] = ()) -> Schema:
    """Return the schema of an object that has these keys, those of ``optional`` not always, and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


def component(name: str) -> Schema:
    """Return the reference to a schema of the document's own."""
    return {"$ref": f"#/components/schemas/{name}"}


def answers(
    good: dict[int, Schema], *codes: str, common: Collection[str] = ANY_CALLER, also: Schema | None = None
) -> dict[int | str, Any]:
    """Return the ``responses`` of a route: JSON where it did what was asked, else a problem with one of these codes.

    ``common`` are the codes that come with every route of its kind; ``also`` is what its problems are besides.
    """
    described: dict[int | str, Any] = {
        status: {
            "description": HTTPStatus(status).phrase,
            "headers": REQUEST_ID,
            "content": {"application/json": {"schema": schema}},
        }
        for status, schema in good.items()
    }
    shared = _by_status(common) if common is ANY_CALLER else {}
    for status, names in _by_status((*common, *codes)).items():
        same = shared.get(status) == names
        described[status] = {"$ref": f"#/components/responses/{_name(status)}"} if same else _problem(status, names, also)
    return described


def shared_problems() -> dict[str, Any]:
    """Return the components to which the answers of the routes refer: what any route that asks who is calling can answer."""
    return {_name(status): _problem(status, names) for status, names in _by_status(ANY_CALLER).items()}


def problem_schema() -> Schema:
    """Return the schema of every problem."""
    properties = {
        "type": told(TEXT, "urn:prism-vault:problem: and the code"),
        "title": told(TEXT, "the status in words"),
        "status": {"type": "integer"},
        "detail": TEXT,
        "code": told({"type": "string", "enum": sorted(CODES)}, "stable; docs/reference/problems.md says what each means"),
        "request_id": told(hexadecimal(8), "also in the header X-Request-Id and in central's log"),
    }
    return {"type": "object", "description": "RFC 9457", "required": list(properties), "properties": properties}


def _by_status(codes: Collection[str]) -> dict[int, list[str]]:
    """Return the codes of each status, in order."""
    statuses = sorted({status for code in codes for status in CODES[code].statuses})
    return {status: sorted({code for code in codes if status in CODES[code].statuses}) for status in statuses}


def _name(status: int) -> str:
    return "".join(HTTPStatus(status).phrase.split())


def _problem(status: int, codes: list[str], also: Schema | None = None) -> Schema:
    """Return the response of one status, with the codes that it can have."""
    schema = {
        "allOf": [component(PROBLEM), *([also] if also else [])],
        "properties": {"status": {"const": status}, "code": {"enum": codes}},
    }
    described: Schema = {
        "description": HTTPStatus(status).phrase,
        "content": {"application/problem+json": {"schema": schema}},
    }
    header = {401: ("WWW-Authenticate", TEXT), 429: ("Retry-After", WHOLE), 503: ("Retry-After", WHOLE)}.get(status)
    described["headers"] = {**REQUEST_ID, **({header[0]: {"required": True, "schema": header[1]}} if header else {})}
    return described
