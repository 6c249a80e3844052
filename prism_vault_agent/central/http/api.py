"""The routes that need not be fast, in FastAPI, which also describes them; its errors are problems like all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from prism_vault_agent import __version__
from prism_vault_agent.central.http.openapi import complete
from prism_vault_agent.central.http.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi import APIRouter
    from starlette.types import Lifespan


class Api(FastAPI):
    """The routes of some routers, and the description of all."""

    def __init__(self, lifespan: Lifespan[Api], routers: Iterable[APIRouter]) -> None:
        """Serve ``routers`` while ``lifespan`` lasts."""
        super().__init__(
            title="prism-vault central",
            version=__version__,
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        for router in routers:
            self.include_router(router)
        self.add_exception_handler(RequestValidationError, _answer_invalid)
        self.add_exception_handler(HTTPException, _answer_http)
        self.add_exception_handler(Exception, _pass_on)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of every route."""
        if self.openapi_schema is None:
            self.openapi_schema = complete(super().openapi())
        return self.openapi_schema


async def _pass_on(_request: Request, error: Exception) -> Response:
    """Leave the error to the door around us."""
    raise error


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    in_body = any(fault["loc"][0] == "body" for fault in faults)
    ours = [fault["msg"].removeprefix("Value error, ") for fault in faults if fault["type"] == "value_error"]
    names = ", ".join(sorted({str(fault["loc"][-1]) for fault in faults}))
    told = ours[0] if ours else f"wrong or unknown: {names[:200]}"
    return (Problem(400, "malformed", told) if in_body else Problem(400, "query", told)).response(request.state.request_id)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "no_such_route", 405: "method"}.get(error.status_code, "http")
    headers = dict(error.headers or {})
    return Problem(error.status_code, code, "see /openapi.json", headers=headers).response(request.state.request_id)
