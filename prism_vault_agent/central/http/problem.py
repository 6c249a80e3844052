"""Errors as RFC 9457 problem details: a stable ``code``, a sentence, and the id of the request; never what was sent."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

ALWAYS: Final[dict[int, dict[str, str]]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "1"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}


class Problem(Exception):
    """An answer that is not the one asked for. ``code`` is one of :data:`~prism_vault_agent.central.http.codes.CODES`.

    ``told`` says that the log has its line already.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        more: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        told: bool = False,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.more = more or {}
        self.headers = headers or {}
        self.told = told

    def response(self, request_id: str) -> Response:
        """Return the problem as an HTTP response."""
        content = {
            **self.more,
            "type": f"urn:prism-vault:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        return Response(json.dumps(content), self.status, ALWAYS.get(self.status, {}) | self.headers, "application/problem+json")
