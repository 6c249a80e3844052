"""Whether the servers answer, over TLS that verifies: the checks of ``doctor`` that go over the network. Sends no credential.

They go by the relays of an agent that has no network.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import socket
import ssl
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from prism_vault_agent.cli.checks import Check, judge
from prism_vault_agent.relay import lacking, name_of, unit_of

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from prism_vault_agent.cli.checks import State
    from prism_vault_agent.config.settings import CentralSettings, TlsFiles, VaultSettings

LARGEST_SKEW: Final = 30.0
LARGEST_ANSWER: Final = 64 * 1024
HEALTH: Final = "/v1/sys/health?standbyok=true&perfstandbyok=true"


class NoAnswer(Exception):
    """A server could not be asked; the text says why. ``known`` is whether that says something of the server."""

    def __init__(self, why: str, mend: str | None = None, *, known: bool = True) -> None:
        super().__init__(why)
        self._mend = mend
        self._known = known

    def check(self, name: str, promise: str, mend: str) -> Check:
        """Return it as a check; ``mend`` is what to do where nothing else is known to help."""
        state: State = "does not hold" if self._known else "unknown"
        return Check(name, promise, state, str(self), mend if self._mend is None else self._mend, needed=True)


def vault(settings: VaultSettings) -> list[Check]:
    """Return whether the provider answers and is unsealed, and how the way there is protected."""
    name = "the provider answers"
    try:
        _, body, _ = get(settings.address, HEALTH, settings.tls, settings.timeout, settings.relay)
        told = json.loads(body)
        sealed, version = bool(told["sealed"]), str(told["version"])[:40]
    except NoAnswer as error:
        return [error.check(name, "G7", "check [vault] address and ca_file")]
    except (ValueError, KeyError, TypeError):
        why = "what answers is no Vault and no OpenBao"
        return [Check(name, "G7", "does not hold", why, "check [vault] address", needed=True)]
    why = f"version {version}, " + ("sealed" if sealed else "unsealed")
    return [judge(name, "G7", holds=not sealed, why=why, mend="unseal it", needed=True), _way("provider", settings.address)]


def central(settings: CentralSettings) -> list[Check]:
    """Return whether central can record, whether its clock and ours agree, and how the way there is protected.

    Of several replicas each is told, and one that can record is enough.
    """
    several = len(settings.urls) > 1
    found = [_replica(url, settings, f" at {urlsplit(url).netloc}" if several else "") for url in settings.urls]
    enough = any(checks[0].state == "holds" for checks in found)
    return [replace(check, needed=check.needed and not enough) for checks in found for check in checks]


def _replica(url: str, settings: CentralSettings, where: str) -> list[Check]:
    name = f"central answers{where}"
    try:
        status, _, date = get(url, "/readyz", settings.tls, settings.timeout, settings.relay)
    except NoAnswer as error:
        return [error.check(name, "G1", "check [central] url and ca_file")]
    return [
        judge(name, "G1", holds=status == 200, why=f"/readyz says {status}", mend="see central's log", needed=True),
        skew(date, time.time()),
        _way("central", url),
    ]


def skew(date: str, now: float) -> Check:
    """Return whether the clock that an HTTP ``Date`` header shows is near ours, which is ``now`` (seconds since 1970)."""
    name = "our clock and central's agree"
    try:
        difference = abs(email.utils.parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, TypeError):
        return Check(name, "G8", "unknown", "central does not tell its time")
    return judge(name, "G8", holds=difference <= LARGEST_SKEW, why=f"{difference:.0f} s apart", mend="synchronise both clocks")


class Relayed(http.client.HTTPConnection):
    """A connection by the relay at ``path``, over TLS with the server itself where there is a ``context``."""

    def __init__(self, host: str, path: str, timeout: float, context: ssl.SSLContext | None) -> None:
        super().__init__(host, timeout=timeout)
        self._path = path
        self._context = context

    def connect(self) -> None:
        """Be connected. Raises ``OSError``."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)


def get(url: str, path: str, tls: TlsFiles, timeout: float, relay: str = "") -> tuple[int, bytes, str]:
    """Return status, body and ``Date`` of a GET without credentials, by the relay in the directory ``relay`` if that is one.

    Raises :class:`NoAnswer`.
    """
    for line in lacking(relay, [url]):
        raise NoAnswer(line, mend="")
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        connection = _connection(parts, tls, timeout, relay)
        try:
            connection.request("GET", parts.path + path)
            answer = connection.getresponse()
            return answer.status, answer.read(LARGEST_ANSWER), answer.getheader("Date", "")
        finally:
            connection.close()
    except ssl.SSLCertVerificationError as error:
        raise NoAnswer(f"the certificate of {host} does not verify ({error.verify_message})") from None
    except ssl.SSLError as error:
        raise NoAnswer(f"TLS with {host} fails ({error.reason or 'unknown reason'})") from None
    except TimeoutError:
        raise NoAnswer(f"{host} does not answer within {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        if relay and isinstance(error, PermissionError):
            told = f"the relay to {host} is not for you to connect to"
            raise NoAnswer(told, "run doctor as the agent's user", known=False) from None
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        mend = f"journalctl -u {unit_of(name_of(url), 'service')} says why" if relay else None
        raise NoAnswer(f"{host} cannot be reached ({why})", mend) from None


def _connection(parts: SplitResult, tls: TlsFiles, timeout: float, relay: str) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    context = None
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=tls.ca_file or None)
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    if relay:
        return Relayed(host, f"{relay}/{name_of(parts.geturl())}", timeout, context)
    if context is not None:
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)
    return http.client.HTTPConnection(host, parts.port, timeout=timeout)


def _way(what: str, url: str) -> Check:
    encrypted = url.startswith("https://")
    why = "TLS, verified" if encrypted else "plain HTTP, on loopback only"
    return judge(f"the way to {'the ' if what == 'provider' else ''}{what} is protected", "G4", holds=True, why=why, mend="")
