"""The kinds of what an engine is asked for, and which one a plain form is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.wanted.certificate import Certificate
from prism_vault_agent.wanted.decryption import Decryption
from prism_vault_agent.wanted.ssh_certificate import SshCertificate

if TYPE_CHECKING:
    from collections.abc import Mapping

Wanted = Certificate | Decryption | SshCertificate
KINDS: Final[dict[str, type[Wanted]]] = {
    "certificate": Certificate,
    "decryption": Decryption,
    "ssh_certificate": SshCertificate,
}


def wanted_of(plain: Mapping[str, Any] | None) -> Wanted | None:
    """Return what ``dataclasses.asdict`` made ``plain`` of; None for None. Raises ``KeyError`` or ``TypeError`` for another."""
    return None if plain is None else KINDS[plain["kind"]].of(plain)
