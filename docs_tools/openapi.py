"""Central's OpenAPI document, from the application as it is served."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from prism_vault_agent.central.app import build
from prism_vault_agent.central.config import CentralConfig
from prism_vault_agent.central.storage.engines import migrate


def document() -> str:
    """Return the document as JSON."""
    with tempfile.TemporaryDirectory() as directory:
        config = CentralConfig(database=str(Path(directory) / "central" / "audit.db"))
        migrate(config.database)
        described = asyncio.run(_served(config))
    return json.dumps(described, indent=2, sort_keys=True) + "\n"


async def _served(config: CentralConfig) -> dict[str, Any]:
    transport = httpx2.ASGITransport(build(config))
    async with httpx2.AsyncClient(transport=transport, base_url="http://central") as client:
        described: dict[str, Any] = (await client.get("/openapi.json")).json()
    return described
