"""A certificate that an engine issues for a key that it makes: asked for with names, answered as one secret that ends."""

from __future__ import annotations

from prism_vault_agent.errors import ConfigError, ProtocolError
from prism_vault_agent.vault import fields, leased

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from prism_vault_agent.model import Lease
    from prism_vault_agent.vault.kv import Place
    from prism_vault_agent.vault.transport import Answer, Transport
    from prism_vault_agent.wanted.certificate import Certificate


def ask(transport: Transport, token: str, place: Place, wanted: Certificate, deadline: float) -> Answer:
    """Have a certificate issued, once. Raises as ``Transport.request``, and :class:`ConfigError` for a pinned version."""
    if place.version:
        raise ConfigError(f"{place}: a certificate has no versions", mend="leave out ?version=")
    body = {"common_name": wanted.common_name, "ttl": f"{wanted.seconds}s", "format": "pem"}
    for name, values in (("alt_names", wanted.dns), ("uri_sans", wanted.uris), ("ip_sans", wanted.ips)):
        if values:
            body[name] = ",".join(values)
    return transport.request("POST", place.path, token=token, body=body, deadline=deadline, repeatable=False, exact_numbers=True)


def understand(place: Place, answer: Answer, wanted: Certificate) -> tuple[dict[str, Any], Lease]:
    """Return the parts of a certificate by name, and its life as a lease.

    They are those of the answer, in PEM, lists one below the other, and ``full_chain``: the certificate and who signed it.
    Raises as :func:`leased.understand` and :func:`leased.until`.
    """
    data, lease = leased.understand(place, answer)
    certificate, _ = fields.text(data, "certificate"), fields.text(data, "private_key")
    chain = fields.texts(data, "ca_chain") or tuple(filter(None, [fields.text(data, "issuing_ca", "")]))
    try:
        ends = int(str(data.get("expiration")))
    except ValueError:
        raise ProtocolError("the answer's field expiration is not a time", reason="malformed_answer") from None
    parts = {**data, "ca_chain": _below(chain), "full_chain": _below((certificate, *chain))}
    return parts, leased.until(ends, wanted.seconds, lease)


def _below(parts: tuple[str, ...]) -> str:
    return "\n".join(part.strip("\n") for part in parts)
