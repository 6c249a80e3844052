"""The token's life after the login, through hvac, over our transport (docs/adr/0020). Not for direct mode: hvac is large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hvac
from hvac.adapters import Adapter

from prism_vault_agent.errors import Denied
from prism_vault_agent.vault import fields, login
from prism_vault_agent.vault.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.vault.login import VaultToken
    from prism_vault_agent.vault.transport import Answer, Transport


class _OverTransport(Adapter):  # type: ignore[type-arg]  # generic in its stubs only
    """hvac's requests on our connection: our deadline, limits and errors, and no settings but ours.

    The base class's constructor is not called: it would make a ``requests`` session, which reads the environment.
    """

    def __init__(self, transport: Transport, token: str, deadline: float) -> None:
        self.base_uri = transport.address
        self.token = token
        self._transport = transport
        self._deadline = deadline

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,  # noqa: FBT001, FBT002 - hvac's signature
        *,
        json: Mapping[str, Any] | None = None,
        params: Mapping[str, str | int] | None = None,
        **unknown: Any,
    ) -> dict[str, Any]:
        """Send what hvac asks for; raise our own errors, which hvac lets pass."""
        assert not headers, "our transport sets the headers"
        assert raise_exception
        assert not any(unknown.values()), f"not carried by our transport: {sorted(unknown)}"
        path = url.removeprefix("/v1/")
        answer = self._transport.request(
            method.upper(),
            path,
            token=self.token or "",
            body=json,
            query=params,
            deadline=self._deadline,
            repeatable=True,  # renewing, looking up and revoking a token twice is doing it once
        )
        return self._checked(path, answer)

    def _checked(self, path: str, answer: Answer) -> dict[str, Any]:
        if answer.status == 403:
            raise refusal(self._transport, self.token or "", path, deadline=self._deadline)
        if not answer.ok:
            raise Denied(f"{self.base_uri} refuses {path} ({answer.status})", reason="token_refused")
        return answer.data or {}

    def get_login_token(self, response: dict[str, Any]) -> str:
        """Return the token of a login's answer."""
        return fields.text(fields.mapping(response, "auth"), "client_token")


def _client(transport: Transport, token: str, deadline: float) -> hvac.Client:
    """Return an hvac client that knows only what it is given: address and token are set, so none is searched for."""
    adapter = _OverTransport(transport, token, deadline)

    def made(**_: Any) -> _OverTransport:
        return adapter

    return hvac.Client(url=transport.address, token=token, verify=True, adapter=made)  # type: ignore[arg-type]  # it is called as a class would be


def renew(transport: Transport, token: str, deadline: float) -> int:
    """Renew the token and return for how many seconds it now lives, which a max ttl may have cut short.

    Raises :class:`TokenExpired`, ``Denied(token_refused)`` where it cannot be renewed, else as ``Transport.request``.
    """
    answer = _client(transport, token, deadline).auth.token.renew_self()
    return fields.seconds(fields.mapping(answer, "auth"), "lease_duration")


def lookup(transport: Transport, token: str, deadline: float) -> VaultToken:
    """Return the token with its facts as the server knows them now. Raises like :func:`renew`."""
    answer = _client(transport, token, deadline).auth.token.lookup_self()
    return login.from_lookup(token, fields.mapping(answer, "data"))


def revoke_self(transport: Transport, token: str, deadline: float) -> None:
    """Revoke the token and all leases made by it. Raises :class:`TokenExpired` where it is dead already, else as above."""
    _client(transport, token, deadline).auth.token.revoke_self()


def revoke_accessor(transport: Transport, token: str, accessor: str, deadline: float) -> None:
    """Revoke the token that ``accessor`` stands for, by the right of ``token``. Raises like :func:`renew`."""
    _client(transport, token, deadline).auth.token.revoke_accessor(accessor)
