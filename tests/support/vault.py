"""Short words for tests of the Vault adapter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prism_vault_agent.config.settings import AuthSettings, TlsFiles, VaultSettings
from prism_vault_agent.scope import Binding, SecretReference
from prism_vault_agent.vault import reading
from prism_vault_agent.vault.transport import Transport

if TYPE_CHECKING:
    from prism_vault_agent.vault.reading import Reading
    from tests.support.openbao import OpenBao

OPEN: list[Transport] = []
CANARY = "hvs.CANARY-0f3b7a91d2c4"


def soon(seconds: float = 10.0) -> float:
    """Return the deadline ``seconds`` from now."""
    return time.monotonic() + seconds


def settings(address: str, *, tls: TlsFiles | None = None, **options: Any) -> VaultSettings:
    """Return settings for ``address``; logins are given separately in these tests."""
    auth = AuthSettings("token_file", "token", token_file="/nonexistent")
    return VaultSettings(address, auth, tls=tls or TlsFiles(), **options)


def transport(address: str, **options: Any) -> Transport:
    """Return a transport to ``address``, to be closed after the test (see ``tests/vault/conftest.py``)."""
    made = Transport(settings(address, **options))
    OPEN.append(made)
    return made


def bind(**references: str) -> list[Binding]:
    """Return bindings: ``NAME="mount/path#key"``."""
    return [Binding(name, SecretReference.parse(f"vault://{text}")) for name, text in references.items()]


def all_keys(path: str) -> list[Binding]:
    """Return the binding that makes the keys of ``path`` names."""
    return [Binding(None, SecretReference.parse(f"vault://{path}"))]


def read(bao: OpenBao, token: str, bindings: list[Binding], **options: Any) -> Reading:
    """Read ``bindings`` from ``bao`` over a connection of its own."""
    return reading.read(transport(bao.address), token, bindings, deadline=soon(), **options)
