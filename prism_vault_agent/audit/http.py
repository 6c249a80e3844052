"""Batches of events to central over HTTP, on one kept connection. Every failure is *unknown*: the batch is asked for again."""

from __future__ import annotations

import json
import logging
import ssl
from typing import TYPE_CHECKING

import httpx2

from prism_vault_agent.audit.answers import BATCH, Answer, results
from prism_vault_agent.errors import AuditUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from prism_vault_agent.config.settings import CentralSettings


logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs whole URLs at INFO


class CentralHttp:
    """Central's audit API. ``credential`` returns the bearer token; ``refused`` is told when central does not take it."""

    def __init__(self, settings: CentralSettings, credential: Callable[[], Awaitable[str]], refused: Callable[[], None]) -> None:
        """Speak to central at ``settings.url``; nothing is taken from the environment."""
        context: ssl.SSLContext | bool = True
        if settings.url.startswith("https:"):
            context = ssl.create_default_context(cafile=settings.tls.ca_file or None)
            if settings.tls.cert_file:
                context.load_cert_chain(settings.tls.cert_file, settings.tls.key_file or None)
        self._credential = credential
        self._refused = refused
        self._client = httpx2.AsyncClient(
            base_url=settings.url, verify=context, timeout=settings.timeout, trust_env=False, follow_redirects=False
        )

    async def post(self, bodies: Sequence[bytes]) -> list[Answer]:
        """Send one batch and return central's answer to each event."""
        headers = {"Authorization": f"Bearer {await self._credential()}", "Content-Type": "application/json"}
        content = json.dumps({"events": [body.decode() for body in bodies]}, ensure_ascii=False).encode()
        try:
            answer = await self._client.post(BATCH, content=content, headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError) as error:
            raise AuditUnavailable(f"central does not answer ({type(error).__name__})", mend="see prism-vault doctor") from None
        if answer.status_code == 401:
            self._refused()
        return results(answer.status_code, answer.content, len(bodies))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()
