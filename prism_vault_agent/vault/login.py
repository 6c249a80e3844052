"""Logging in to Vault or OpenBao, and what a login gives: a token with its facts, and our identity towards central."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from prism_vault_agent.errors import ConfigError, Denied, ProtocolError
from prism_vault_agent.vault import credentials, fields
from prism_vault_agent.vault.refusal import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from prism_vault_agent.config.settings import AuthSettings
    from prism_vault_agent.vault.transport import Transport


@dataclass(frozen=True, slots=True)
class VaultToken:
    """A token and its facts. ``seconds`` is its remaining life, 0 where it never ends. ``value`` is never shown."""

    value: str = field(repr=False)
    accessor: str
    seconds: int
    renewable: bool
    policies: tuple[str, ...]
    entity_id: str
    orphan: bool


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """A signed statement by the provider of who we are (a JWT), and for how many seconds it holds."""

    value: str = field(repr=False)
    seconds: int


def log_in(transport: Transport, auth: AuthSettings, deadline: float) -> VaultToken:
    """Log in as ``auth`` says and return the token; ``deadline`` is CLOCK_MONOTONIC seconds.

    Raises:
        ConfigError: a credential file is missing or unsafe, or the role gives tokens that cannot be revoked.
        Denied: ``login_refused``; for a wrapped secret-id also ``wrong_wrapping`` and ``interception``.
        ProviderUnavailable, ProtocolError: as ``Transport.request``.
    """
    mount = f"auth/{auth.mount.strip('/').removeprefix('auth/')}"
    if auth.method == "token_file":
        return _token_of_file(transport, auth.token_file, deadline)
    if auth.method == "approle":
        path, body = f"{mount}/login", {"role_id": credentials.read(auth.role_id_file)}
        if auth.secret_id_file:
            body["secret_id"] = _secret_id(transport, auth, deadline)
    elif auth.method == "userpass":
        path, body = f"{mount}/login/{auth.username}", {"password": credentials.read(auth.password_file)}
    elif auth.method == "cert":
        path, body = f"{mount}/login", {"name": auth.role} if auth.role else {}
    else:
        # The kubelet writes service account tokens readable to all within the container, and to nobody outside it.
        others = auth.method == "kubernetes"
        path, body = f"{mount}/login", {"role": auth.role, "jwt": credentials.read(auth.jwt_file, others_may_read=others)}
    answer = transport.request("POST", path, body=body, deadline=deadline)
    if not answer.ok:
        raise Denied(
            f"{transport.address} refuses our login at {mount} ({answer.status})",
            mend=f"check the {auth.method} role and credential, and that the method is enabled there",
            reason="login_refused",
        )
    return _token(fields.mapping(answer.data, "auth"), "client_token", "lease_duration", "token_type")


def from_lookup(token: str, data: dict[str, Any]) -> VaultToken:
    """Return ``token`` with the facts that ``auth/token/lookup-self`` answered. Raises as :func:`log_in`."""
    return _token({**data, "id": token}, "id", "ttl", "type")


def identity_token(transport: Transport, token: str, role: str, deadline: float) -> IdentityToken:
    """Have the provider sign who we are, by its identity-token role ``role``.

    Raises :class:`Denied`, with ``no_identity`` where the role is missing or the token belongs to nobody (a root token, a
    token without entity); :class:`TokenExpired`; else as ``Transport.request``.
    """
    answer = transport.request("GET", f"identity/oidc/token/{role}", token=token, deadline=deadline)
    if answer.status == 403:
        raise refusal(transport, token, f"identity/oidc/token/{role}", deadline=deadline)
    if not answer.ok:
        raise Denied(
            f"{transport.address} signs no identity token of role {role} for us ({answer.status})",
            mend="make that identity-token role, and log in by a method that gives an entity",
            reason="no_identity",
        )
    data = fields.mapping(answer.data, "data")
    return IdentityToken(fields.text(data, "token"), fields.seconds(data, "ttl"))


def _token(auth: dict[str, Any], value: str, seconds: str, kind: str) -> VaultToken:
    """Return the token of an answer; the last three name its fields, which a login and a look-up call differently."""
    if auth.get("mfa_requirement"):
        raise Denied("the login asks for a second factor", mend="use a method for machines", reason="login_refused")
    token = fields.text(auth, value)
    if not token.isascii() or not token.isprintable() or not token:
        raise ProtocolError(f"the answer's field {value} is not a token", reason="malformed_answer")
    accessor = fields.text(auth, "accessor", "")
    if fields.text(auth, kind, "") == "batch" or not accessor:
        raise ConfigError("the login gives batch tokens, which cannot be revoked", mend="set token_type=service on the role")
    return VaultToken(
        value=token,
        accessor=accessor,
        seconds=fields.seconds(auth, seconds),
        renewable=fields.flag(auth, "renewable"),
        policies=fields.texts(auth, "policies"),
        entity_id=fields.text(auth, "entity_id", ""),
        orphan=fields.flag(auth, "orphan"),
    )


def _token_of_file(transport: Transport, path: str, deadline: float) -> VaultToken:
    token = credentials.read(path)
    answer = transport.request("GET", "auth/token/lookup-self", token=token, deadline=deadline)
    if not answer.ok:
        raise Denied(
            f"{transport.address} refuses the token of {path}", mend="write a living token there", reason="login_refused"
        )
    return from_lookup(token, fields.mapping(answer.data, "data"))


def _secret_id(transport: Transport, auth: AuthSettings, deadline: float) -> str:
    """Return the secret-id, unwrapped where it is delivered wrapped, by whom it should have been."""
    credential = credentials.read(auth.secret_id_file)
    if not auth.secret_id_wrapped_by:
        return credential
    expected = auth.secret_id_wrapped_by.strip("/")
    wrapped = {"token": credential}
    answer = transport.request("POST", "sys/wrapping/lookup", body=wrapped, deadline=deadline, repeatable=True)
    if not answer.ok:
        raise _intercepted(auth)
    if fields.text(fields.mapping(answer.data, "data"), "creation_path", "").strip("/") != expected:
        raise Denied(
            f"the wrapping token in {auth.secret_id_file} was not made at {quote(expected)}: it may have been swapped",
            mend="find out who wrote it; deliver a new one",
            reason="wrong_wrapping",
        )
    answer = transport.request("POST", "sys/wrapping/unwrap", token=credential, deadline=deadline)
    if not answer.ok:
        raise _intercepted(auth)
    return fields.text(fields.mapping(answer.data, "data"), "secret_id")


def _intercepted(auth: AuthSettings) -> Denied:
    return Denied(
        f"the wrapped secret-id in {auth.secret_id_file} was already unwrapped, or is too old: "
        "unless it was us, at an earlier login, someone else has read it",
        mend="revoke it, find out who unwrapped it, deliver a new one",
        reason="interception",
    )
