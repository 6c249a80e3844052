"""An SSH certificate for a key that is made here: its public half is all that the engine sees."""

from __future__ import annotations

from prism_vault_agent.errors import ConfigError, ProtocolError
from prism_vault_agent.vault import fields, leased, openssh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from prism_vault_agent.model import Lease
    from prism_vault_agent.vault.kv import Place
    from prism_vault_agent.vault.transport import Answer, Transport
    from prism_vault_agent.wanted.ssh_certificate import SshCertificate

COMMENT = "prism-vault"


def ask(transport: Transport, token: str, place: Place, wanted: SshCertificate, deadline: float) -> Answer:
    """Make a key pair and have it signed, once; return the answer with the pair in it, as if the engine had made it.

    Raises as ``Transport.request``, and :class:`ConfigError` for a pinned version.
    """
    if place.version:
        raise ConfigError(f"{place}: a certificate has no versions", mend="leave out ?version=")
    pair = openssh.pair(COMMENT)
    body: dict[str, Any] = {
        "public_key": pair.public,
        "valid_principals": ",".join(wanted.principals),
        "cert_type": wanted.cert_type,
        "ttl": f"{wanted.seconds}s",
        **({"critical_options": dict(wanted.options)} if wanted.options else {}),
        **({"extensions": dict(wanted.extensions)} if wanted.extensions is not None else {}),
    }
    answer = transport.request("POST", place.path, token=token, body=body, deadline=deadline, repeatable=False)
    if not answer.ok:
        return answer
    parts = {**fields.mapping(answer.data, "data"), "private_key": pair.private, "public_key": pair.public}
    return type(answer)(answer.status, {**(answer.data or {}), "data": parts})


def understand(place: Place, answer: Answer, wanted: SshCertificate) -> tuple[dict[str, Any], Lease]:
    """Return the parts by name, and the certificate's life as a lease.

    The parts are ``private_key``, ``public_key``, ``signed_key`` (the certificate) and ``serial_number``. It is of our key, names
    whom we named and nobody else, and is signed by whom we know. Raises as :func:`leased.understand` and :func:`leased.until`,
    and :class:`ProtocolError` for another certificate.
    """
    if answer.status == 400:
        told = f"the engine refuses {place} (400)"
        raise ConfigError(told, mend="check principals, extensions and ttl against the engine's role; it must allow Ed25519 keys")
    data, lease = leased.understand(place, answer)
    signed = fields.text(data, "signed_key")
    found = openssh.says(signed)
    if found.key != str(data["public_key"]).split()[1] or found.host != (wanted.cert_type == "host"):
        raise ProtocolError(f"{place} was answered with a certificate of another key or type", reason="malformed_answer")
    if sorted(found.principals) != sorted(wanted.principals):
        raise ProtocolError(f"{place} was answered with a certificate that names others", reason="malformed_answer")
    if wanted.authorities and found.authority not in wanted.authorities:
        mend = "correct ca in the scope, or find out who answers"
        raise ConfigError(f"{place} was answered with a certificate of another authority", mend=mend, reason="unknown_authority")
    return {**data, "signed_key": signed.strip() + "\n"}, leased.until(found.ends, wanted.seconds, lease)
