"""The replicas of central: one is in use until it fails, then the next. All of them write the same log."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prism_vault_agent.audit.answers import RateLimited
from prism_vault_agent.vault.tls import tls_context

if TYPE_CHECKING:
    import ssl

    from prism_vault_agent.config.settings import CentralSettings


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """Where one replica is. ``authority`` is for ``Host``; ``prefix`` goes before every path; no ``context`` is plain http."""

    host: str
    port: int
    authority: str
    prefix: str
    context: ssl.SSLContext | None


class Replicas:
    """The addresses of ``[central]``, shared by all connections of a process, so that what one of them learns holds for all."""

    def __init__(self, settings: CentralSettings) -> None:
        """Begin with ``settings.url``. Raises ``ConfigError`` for unusable TLS files."""
        contexts: dict[bool, ssl.SSLContext | None] = {}
        for url in settings.urls:
            encrypted = url.startswith("https:")
            if encrypted not in contexts:
                contexts[encrypted] = tls_context(url, settings.tls)
        self._replicas = tuple(_replica(url, contexts[url.startswith("https:")]) for url in settings.urls)
        self._place = 0
        self._rest = -math.inf

    def __len__(self) -> int:
        return len(self._replicas)

    @property
    def current(self) -> Replica:
        """The replica in use."""
        return self._replicas[self._place]

    def failed(self, replica: Replica) -> None:
        """Use the next one, unless another connection has found out before."""
        if replica is self.current:
            self._place = (self._place + 1) % len(self._replicas)

    def limited(self, error: RateLimited) -> None:
        """Ask nothing before the time is up that central has told: its limit is one for all connections of this host."""
        self._rest = time.monotonic() + error.seconds

    def check(self) -> None:
        """Raise :class:`RateLimited` while that time is not up."""
        if (left := self._rest - time.monotonic()) > 0:
            raise RateLimited(left)


def _replica(url: str, context: ssl.SSLContext | None) -> Replica:
    parts = urlsplit(url)
    return Replica(parts.hostname or "", parts.port or (443 if context else 80), parts.netloc, parts.path.rstrip("/"), context)
