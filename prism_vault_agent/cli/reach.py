"""Whether the servers answer, over TLS that verifies: the checks of ``doctor`` that go over the network. Sends no credential."""

from __future__ import annotations

import email.utils
import http.client
import json
import ssl
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from prism_vault_agent.cli.checks import Check, judge

if TYPE_CHECKING:
    from prism_vault_agent.config.settings import CentralSettings, TlsFiles, VaultSettings

LARGEST_SKEW: Final = 30.0
LARGEST_ANSWER: Final = 64 * 1024
HEALTH: Final = "/v1/sys/health?standbyok=true&perfstandbyok=true"


class NoAnswer(Exception):
    """A server could not be asked; the text says why."""


def vault(settings: VaultSettings) -> list[Check]:
    """Return whether the provider answers and is unsealed, and how the way there is protected."""
    name = "the provider answers"
    try:
        _, body, _ = get(settings.address, HEALTH, settings.tls, settings.timeout)
        told = json.loads(body)
        sealed, version = bool(told["sealed"]), str(told["version"])[:40]
    except NoAnswer as error:
        return [Check(name, "G7", "does not hold", str(error), "check [vault] address and ca_file", needed=True)]
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
        status, _, date = get(url, "/readyz", settings.tls, settings.timeout)
    except NoAnswer as error:
        return [Check(name, "G1", "does not hold", str(error), "check [central] url and ca_file", needed=True)]
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


def get(url: str, path: str, tls: TlsFiles, timeout: float) -> tuple[int, bytes, str]:
    """Return status, body and ``Date`` of a GET without credentials. Raises :class:`NoAnswer`."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=tls.ca_file or None)
            if tls.cert_file:
                context.load_cert_chain(tls.cert_file, tls.key_file)
            connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
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
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise NoAnswer(f"{host} cannot be reached ({why})") from None


def _way(what: str, url: str) -> Check:
    encrypted = url.startswith("https://")
    why = "TLS, verified" if encrypted else "plain HTTP, on loopback only"
    return judge(f"the way to {'the ' if what == 'provider' else ''}{what} is protected", "G4", holds=True, why=why, mend="")
