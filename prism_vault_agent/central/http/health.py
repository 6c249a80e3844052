"""The routes for whoever runs central: is it alive, can it work, and how does it do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from prism_vault_agent.central.http.codes import ANYONE
from prism_vault_agent.central.http.problem import Problem
from prism_vault_agent.central.http.schema import TEXT, answers, record, told
from prism_vault_agent.central.metrics import CONTENT_TYPE
from prism_vault_agent.central.readiness import PARTS

if TYPE_CHECKING:
    from prism_vault_agent.central.metrics import Metrics
    from prism_vault_agent.central.readiness import Readiness

STATES: Final = record({part: {"type": "string", "enum": list(states)} for part, states in PARTS.items()})
ALIVE: Final = record({"status": {"const": "ok"}})
READY: Final = record({"status": {"const": "ready"}, "parts": STATES})


class HealthRoutes:
    """The routes, over what the parts of this replica say."""

    def __init__(self, readiness: Readiness, metrics: Metrics) -> None:
        """Show ``readiness`` and ``metrics``."""
        self._readiness = readiness
        self._metrics = metrics

    def router(self) -> APIRouter:
        """Return the routes."""
        unready = {"type": "object", "properties": {"parts": STATES}}
        of_ready = answers({200: READY}, "not_ready", common=ANYONE, also=unready)
        text = told(TEXT, "the text format of Prometheus")
        of_metrics = answers({200: text})
        of_metrics[200]["content"] = {"text/plain": {"schema": text}}
        routes = APIRouter(tags=["health"])
        routes.add_api_route("/healthz", self.healthz, response_class=Response, responses=answers({200: ALIVE}, common=ANYONE))
        routes.add_api_route("/readyz", self.readyz, response_class=Response, responses=of_ready)
        routes.add_api_route("/metrics", self.metrics, response_class=Response, responses=of_metrics)
        return routes

    async def healthz(self) -> Response:
        """Tell that the process serves."""
        return _json({"status": "ok"})

    async def readyz(self) -> Response:
        """Tell whether the log can be written, its checkpoints are fresh, and the issuer's keys are there."""
        answer = await self._readiness.answer()
        if not answer.ready:
            raise Problem(503, "not_ready", "central cannot do its work now", more={"parts": answer.parts})
        return _json({"status": "ready", "parts": answer.parts})

    async def metrics(self) -> Response:
        """Return every metric: to operators, and to anyone of this machine."""
        return Response(self._metrics.exposition(await self._readiness.answer()), 200, {"Content-Type": CONTENT_TYPE})


def _json(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content), 200, None, "application/json")
