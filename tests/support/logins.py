"""Logging in, in tests of the Vault adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.config.settings import AuthSettings
from prism_vault_agent.errors import Denied
from prism_vault_agent.vault import login
from tests.support.vault import soon, transport

if TYPE_CHECKING:
    from pathlib import Path

    from prism_vault_agent.vault.login import VaultToken
    from tests.support.openbao import OpenBao


def log_in(bao: OpenBao, auth: AuthSettings, **options: Any) -> VaultToken:
    """Log in with ``auth`` to ``bao``; options are those of the settings."""
    return login.log_in(transport(bao.address, **options), auth, soon())


def refusal(bao: OpenBao, auth: AuthSettings, **options: Any) -> Denied:
    """Return the error of a login that must be refused."""
    with pytest.raises(Denied) as refused:
        log_in(bao, auth, **options)
    return refused.value


def approle(role_id: Path, secret_id: Path, **options: Any) -> AuthSettings:
    """Return the settings of an AppRole login with these files."""
    return AuthSettings(
        "approle", options.pop("mount", "approle"), role_id_file=str(role_id), secret_id_file=str(secret_id), **options
    )
