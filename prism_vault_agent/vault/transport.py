"""Requests to one Vault or OpenBao: one connection, one deadline, typed errors; nothing taken from the environment.

What it costs to import counts, because ``exec --direct`` pays for it at every start: the standard library only (docs/adr/0021).
"""

from __future__ import annotations

import json
import time
from urllib.parse import quote, urlencode, urljoin, urlsplit

from prism_vault_agent.errors import ConfigError, PrismVaultError, ProtocolError, ProviderUnavailable
from prism_vault_agent.vault import strict_json
from prism_vault_agent.vault.connection import Broken, Connection
from prism_vault_agent.vault.tls import tls_context

__all__ = ["Answer", "Transport", "tls_context"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from typing import Any

    from prism_vault_agent.config.settings import VaultSettings
    from prism_vault_agent.vault.http1 import Reply

RETRIES = 3
FIRST_PAUSE = 0.1  # seconds; doubled each time, and drawn from the half above and below
HOPS = 3
READS = frozenset({"GET", "LIST"})
# What the caller of request() interprets itself; all else that is not a success is an error of request().
ANSWERS = frozenset({400, 403, 404})
# Passing conditions: the status, the audit word, and what is told (developer documentation, "HTTP status codes").
PASSING = {
    412: ("provider_unreachable", "has not caught up with its leader"),
    429: ("rate_limited", "is limiting requests"),
    472: ("standby", "is a recovery standby"),
    473: ("standby", "is a performance standby"),
    500: ("provider_error", "failed internally"),
    502: ("provider_error", "failed behind its gateway"),
    503: ("provider_unreachable", "is not ready"),
    504: ("provider_error", "timed out behind its gateway"),
}


class Answer:
    """An answer: ``status`` is 2xx, 400, 403 or 404; ``data`` is its JSON object, or None where there is no body."""

    __slots__ = ("data", "status")

    def __init__(self, status: int, data: dict[str, Any] | None) -> None:
        self.status = status
        self.data = data

    @property
    def ok(self) -> bool:
        """Tell whether the request succeeded."""
        return self.status < 300


class Transport:
    """A client of the server at ``settings.address``, for one thread."""

    def __init__(self, settings: VaultSettings, *, context: ssl.SSLContext | None = None) -> None:
        """``context``, from :func:`tls_context`, may be shared. Raises :class:`ConfigError` for an unusable address."""
        self.settings = settings
        parts = urlsplit(settings.address)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            port = 0
        if parts.scheme not in {"http", "https"} or not parts.hostname or not port or "@" in parts.netloc or parts.query:
            raise ConfigError("vault.address is not a server's address", mend="write https://<host>:<port>")
        self._context = context or tls_context(settings.address, settings.tls)
        self._origin = (parts.scheme, parts.hostname, port)
        self._base = parts.path.rstrip("/") + "/v1/"
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._head = f"Host: {_header('vault.address', parts.netloc)}\r\nX-Vault-Request: true\r\n"
        if settings.namespace.strip("/"):
            self._head += f"X-Vault-Namespace: {_header('vault.namespace', settings.namespace.strip('/'))}\r\n"
        self._connection = Connection(parts.hostname, port, self._context, told=self.address, relay=settings.relay)

    def another(self) -> Transport:
        """Return a transport to the same server with a connection of its own, for another thread."""
        return Transport(self.settings, context=self._context)

    def connect(self, deadline: float | None = None) -> None:
        """Connect ahead of time. Raises :class:`ProviderUnavailable`, or :class:`ConfigError` for plain http off loopback."""
        limit = time.monotonic() + self.settings.timeout
        try:
            self._connection.open(limit if deadline is None else min(limit, deadline))
        except Broken as broken:
            raise broken.error from None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        token: str = "",
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
        repeatable: bool | None = None,
        exact_numbers: bool = False,
    ) -> Answer:
        """Send one request to ``/v1/<path>`` and return its answer, whatever time it takes up to ``deadline``.

        ``deadline`` is CLOCK_MONOTONIC seconds. A request that is ``repeatable`` (by default one that only reads) is tried up
        to three times more after a passing failure, with jitter and as late as Retry-After says; any other only where nothing
        was sent. ``exact_numbers`` as in :func:`strict_json.parse`.

        Raises:
            ProviderUnavailable: no answer in time, or sealed, on standby, rate limiting, failing.
            ProtocolError: an answer that is not one, is too large, or sends us to another server.
            ConfigError: plain http to another host, or a token no header can carry; nothing was sent.
        """
        target = self._base + quote(path) + (f"?{urlencode(query)}" if query else "")
        head = self._head + (f"X-Vault-Token: {_header('the token', token)}\r\n" if token else "")
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        if body is not None:
            head += "Content-Type: application/json\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n" if content or method not in READS else "\r\n"
        may_repeat = method in READS if repeatable is None else repeatable
        tried, reopened = 0, False
        while True:
            try:
                reply = self._follow(method, target, head, content, deadline)
            except Broken as broken:
                if broken.stale and may_repeat and not reopened:
                    reopened = True
                    continue
                failure: PrismVaultError = broken.error
                asked = 0.0
                again = broken.again and (may_repeat or not broken.sent)
            else:
                passing = self._passing(reply)
                if passing is None:
                    return self._answer(reply, exact_numbers=exact_numbers)
                failure, again = passing, may_repeat and passing.reason != "sealed"
                asked = _retry_after(reply)
            pause = max(asked, _pause(tried))
            tried += 1
            if not again or tried > RETRIES or time.monotonic() + pause >= deadline:
                raise failure from None
            time.sleep(pause)

    def _follow(self, method: str, target: str, head: str, content: bytes, deadline: float) -> Reply:
        """Send the request, and send it again where this same server redirects it (307 and 308 keep method and body)."""
        for _ in range(HOPS + 1):
            limit = min(deadline, time.monotonic() + self.settings.timeout)
            message = f"{method} {target} HTTP/1.1\r\n{head}".encode("ascii") + content
            reply = self._connection.exchange(message, method, limit)
            if reply.status not in {307, 308}:
                return reply
            target = self._redirected(target, reply.headers.get("location", ""))
        raise ProtocolError(f"{self.address} redirects in a circle", reason="redirect")

    def _redirected(self, target: str, location: str) -> str:
        try:
            parts = urlsplit(urljoin(self.address + target, location))
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            parts, port = urlsplit(""), 0
        if (parts.scheme, parts.hostname, port) != self._origin or not location:
            raise ProviderUnavailable(  # as a node does that leads no longer: temporary, whoever is asked next
                f"{self.address} redirects to another server, which is not followed",
                mend="retry; if it stays so, set vault.address to the active node, or to an address that forwards to it",
                reason="redirect",
            )
        there = quote(parts.path, safe="/%") + (f"?{quote(parts.query, safe='=&%+')}" if parts.query else "")
        return there or "/"

    def _passing(self, reply: Reply) -> ProviderUnavailable | None:
        if reply.status == 503 and b"sealed" in reply.body.lower():
            return ProviderUnavailable(f"{self.address} is sealed", mend="unseal it", reason="sealed")
        if reply.status == 501:
            return ProviderUnavailable(f"{self.address} is not initialised", mend="initialise it", reason="sealed")
        if reply.status not in PASSING:
            return None
        reason, told = PASSING[reply.status]
        return ProviderUnavailable(f"{self.address} {told} ({reply.status})", mend="retry later", reason=reason)

    def _answer(self, reply: Reply, *, exact_numbers: bool) -> Answer:
        if not 200 <= reply.status < 300 and reply.status not in ANSWERS:
            raise ProtocolError(f"{self.address} answered {reply.status}", mend="check that vault.address is a Vault or OpenBao")
        try:
            data = strict_json.parse(reply.body, exact_numbers=exact_numbers) if reply.body else None
        except ProtocolError as error:
            error.message = f"{self.address}: {error.message}"
            error.mend = "check that vault.address is a Vault or OpenBao"
            raise
        return Answer(reply.status, data)


def _header(name: str, value: str) -> str:
    """Return ``value``, which must fit a header line; the error names it and never shows it."""
    if not value.isascii() or not value.isprintable():
        raise ConfigError(f"{name} holds characters that a request cannot carry")
    return value


def _pause(tried: int) -> float:
    """Return how long to wait after so many attempts, with jitter, so that many hosts do not come back in step."""
    import random  # noqa: PLC0415 - costs direct mode its start time, and is needed after failures only

    return random.uniform(0.5, 1.5) * FIRST_PAUSE * 2.0**tried  # noqa: S311 - jitter, not a secret


def _retry_after(reply: Reply) -> float:
    """Return the seconds that the server asks us to wait; a date or nonsense asks for nothing."""
    asked = reply.headers.get("retry-after", "").strip()
    return float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else 0.0
