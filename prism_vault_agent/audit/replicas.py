"""The replicas of central: one is in use until it fails, then the next. All of them write the same log."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prism_vault_agent.audit.answers import RateLimited
from prism_vault_agent.errors import AuditUnavailable, ConfigError
from prism_vault_agent.relay import missing, socket_of
from prism_vault_agent.vault.tls import tls_context

if TYPE_CHECKING:
    import asyncio
    import ssl

    from prism_vault_agent.config.settings import CentralSettings, TlsFiles


class Identity:
    """How we show ourselves to replicas over TLS: anew where the files of our certificate have changed, and are good."""

    def __init__(self, tls: TlsFiles) -> None:
        """Use the files as they are now. Raises ``ConfigError`` for unusable ones."""
        self._tls = tls
        self._seen = self._state()
        self._context = tls_context("https:", tls)

    @property
    def certified(self) -> bool:
        """Whether there is a certificate."""
        return bool(self._tls.cert_file)

    @property
    def context(self) -> ssl.SSLContext | None:
        """The context for a new connection."""
        if (state := self._state()) != self._seen:
            self._seen = state
            with contextlib.suppress(ConfigError):  # while only one of two files is new, what we had serves
                self._context = tls_context("https:", self._tls)
        return self._context

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        """Return what is another when a file is."""
        found = []
        for path in filter(None, (self._tls.cert_file, self._tls.key_file, self._tls.ca_file)):
            with contextlib.suppress(OSError):
                facts = os.stat(path)
                found.append((facts.st_ino, facts.st_mtime_ns, facts.st_size))
        return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """Where one replica is. ``authority`` is for ``Host``; ``prefix`` goes before every path."""

    host: str
    port: int
    authority: str
    prefix: str
    identity: Identity | None
    relay: str = ""

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a new connection, TLS done where it is to be. Raises ``OSError``, or ``AuditUnavailable`` without a relay."""
        import asyncio  # noqa: PLC0415 - `exec --direct` has replicas too, and no event loop

        if not self.relay:
            return await asyncio.open_connection(self.host, self.port, ssl=self.context)
        context = self.context
        path = socket_of(self.relay, self.host, self.port)
        try:
            return await asyncio.open_unix_connection(path, ssl=context, server_hostname=self.host if context else None)
        except FileNotFoundError:
            raise AuditUnavailable(f"central cannot be reached: {missing(path)}", mend="retry then") from None

    @property
    def context(self) -> ssl.SSLContext | None:
        """What a new connection needs for TLS; None is plain http."""
        return None if self.identity is None else self.identity.context

    @property
    def certified(self) -> bool:
        """Whether we show it a certificate."""
        return self.identity is not None and self.identity.certified


class Replicas:
    """The addresses of ``[central]``, shared by all connections of a process, so that what one of them learns holds for all."""

    def __init__(self, settings: CentralSettings) -> None:
        """Begin with ``settings.url``. Raises ``ConfigError`` for unusable TLS files."""
        encrypted = any(url.startswith("https:") for url in settings.urls)
        identity = Identity(settings.tls) if encrypted else None
        self._replicas = tuple(
            _replica(url, identity if url.startswith("https:") else None, settings.relay) for url in settings.urls
        )
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


def _replica(url: str, identity: Identity | None, relay: str) -> Replica:
    parts = urlsplit(url)
    port = parts.port or (443 if identity else 80)
    return Replica(parts.hostname or "", port, parts.netloc, parts.path.rstrip("/"), identity, relay)
