"""Client certificates: which of the configured names one is for. That its chain holds, TLS has verified before. Pure.

Only the subject alternative name counts, never the common name (RFC 9525, section 2): its URIs, and where none of them is known,
its DNS names. Both are compared as they are written; a wildcard is nobody but itself.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Mapping


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What counts of a verified certificate: its names, and when it ends in seconds since 1970."""

    uris: frozenset[str]
    dns_names: frozenset[str]
    ends: float


def verified(shown: Mapping[str, Any] | None) -> PeerCertificate | None:
    """Return what counts of what ``ssl.SSLObject.getpeercert()`` gives; None where the client has shown no certificate."""
    if not shown:
        return None
    names = shown.get("subjectAltName", ())
    uris, dns_names = (frozenset(name for kind, name in names if kind == wanted) for wanted in ("URI", "DNS"))
    return PeerCertificate(uris, dns_names, ssl.cert_time_to_seconds(shown["notAfter"]))


def known_names(certificate: PeerCertificate, configured: Container[str]) -> list[str]:
    """Return the configured names that the certificate is for: its URIs, or its DNS names where no URI is known.

    What has a colon is a URI, so that no DNS name can pass for one.
    """
    uris = [name for name in certificate.uris if ":" in name and name in configured]
    return uris or [name for name in certificate.dns_names if ":" not in name and name in configured]
