"""What the agent shows central to say who it is: an identity token of the provider, a service token, or a certificate alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prism_vault_agent.agent.session import JOB_SECONDS
from prism_vault_agent.vault import credentials

if TYPE_CHECKING:
    from prism_vault_agent.agent.session import Session
    from prism_vault_agent.audit.http import Credential
    from prism_vault_agent.config.settings import CentralSettings


class IdentityToken:
    """The provider vouches for us (OpenBao identity token)."""

    def __init__(self, session: Session, role: str) -> None:
        """Mint tokens of ``role`` with the agent's own login."""
        self._session = session
        self._role = role

    async def get(self) -> str:
        """Return the current token."""
        return await self._session.identity(self._role, asyncio.get_running_loop().time() + JOB_SECONDS)

    def refused(self) -> None:
        """Mint another one the next time."""
        self._session.forget_identity(self._role)


class ServiceToken:
    """A token that central's operator made for this host."""

    def __init__(self, path: str) -> None:
        """Read it from ``path`` when it is needed."""
        self._path = path
        self._token = ""

    async def get(self) -> str:
        """Return the token. Raises ``ConfigError`` for a file that is missing or unsafe."""
        self._token = self._token or credentials.read(self._path)
        return self._token

    def refused(self) -> None:
        """Read the file again the next time: it may hold a new one."""
        self._token = ""


class CertificateAlone:
    """TLS shows who we are; there is no token."""

    async def get(self) -> str:
        """Return nothing."""
        return ""

    def refused(self) -> None:
        """Do nothing: the next connection shows the certificate as its file is then."""


def credential_of(settings: CentralSettings, session: Session) -> Credential:
    """Return the credential that the configuration names."""
    if settings.identity_role:
        return IdentityToken(session, settings.identity_role)
    return ServiceToken(settings.token_file) if settings.token_file else CertificateAlone()
