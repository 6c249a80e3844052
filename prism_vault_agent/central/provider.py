"""OpenBao or Vault as central asks it: one request at a time, with a token that is had anew when it ends or is refused."""

from __future__ import annotations

import math
import os
import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2

from prism_vault_agent.central.config import check_ours
from prism_vault_agent.errors import ConfigError, Denied, ProtocolError, ProviderUnavailable

if TYPE_CHECKING:
    from prism_vault_agent.central.log_settings import Transit

    Json = dict[str, Any]

SECONDS: Final = 5.0
LARGEST_CREDENTIAL: Final = 64 * 1024


class Provider:
    """The server at ``settings.address``. It may be asked by several threads. Nothing is taken from the environment."""

    def __init__(self, settings: Transit) -> None:
        """Ask nothing yet. Raises ``ConfigError`` where ``ca_file`` cannot be used."""
        self._settings = settings
        self._logging_in = threading.Lock()
        self._token = ""
        self._until = 0.0
        headers = {"X-Vault-Request": "true"}
        if settings.namespace:
            headers["X-Vault-Namespace"] = settings.namespace
        try:
            context = ssl.create_default_context(cafile=settings.ca_file or None)
        except (OSError, ssl.SSLError):
            raise ConfigError(
                f"{settings.ca_file} holds no certificates that can be used", mend="see log.transit.ca_file"
            ) from None
        self._client = httpx2.Client(
            base_url=f"{settings.address.rstrip('/')}/v1/", headers=headers, verify=context, timeout=SECONDS, trust_env=False
        )

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return what the server answers.

        Raises ``ProviderUnavailable`` where it is away, sealed or busy, ``Denied`` where the token may not,
        ``ConfigError`` where there is no such thing, and ``ProtocolError`` for an answer that is none.
        """
        token = self._log_in(refused=None)
        answer = self._send(method, path, body, token)
        if answer.status_code == 403:  # expired, revoked or replaced meanwhile; or it may not, and the next one may not either
            answer = self._send(method, path, body, self._log_in(refused=token))
        return self._read(answer, path)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _log_in(self, *, refused: str | None) -> str:
        """Return the token, which is had anew where its end is near, or where it is the one that was ``refused``."""
        with self._logging_in:
            if time.monotonic() >= self._until or self._token == refused:
                self._token, lease = self._by_approle() if self._settings.role_id_file else self._by_file()
                self._until = time.monotonic() + lease * 2 / 3 if lease else math.inf
            return self._token

    def _by_approle(self) -> tuple[str, float]:
        body = {"role_id": _credential(self._settings.role_id_file), "secret_id": _credential(self._settings.secret_id_file)}
        path = f"auth/{self._settings.approle_mount}/login"
        answer = self._send("POST", path, body, "")
        if answer.status_code in (400, 403):
            raise Denied("the provider does not take the role id and secret id for the signing key", mend="renew the secret id")
        return _lease(self._read(answer, path))

    def _by_file(self) -> tuple[str, float]:
        """Return the token in the file. Where it can be renewed it is, so that a periodic one does not end."""
        token = _credential(self._settings.token_file)
        answer = self._send("POST", "auth/token/renew-self", {}, token)
        return (token, 0.0) if answer.status_code in (400, 403) else _lease(self._read(answer, "auth/token/renew-self"))

    def _send(self, method: str, path: str, body: Json | None, token: str) -> httpx2.Response:
        try:
            return self._client.request(method, path, json=body, headers={"X-Vault-Token": token} if token else {})
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ProviderUnavailable(
                f"the provider of the signing key does not answer ({type(error).__name__})", mend=f"see {self._settings.address}"
            ) from None

    def _read(self, answer: httpx2.Response, path: str) -> Json:
        status = answer.status_code
        if status == 403:
            raise Denied(f"the provider's policy does not let central use {path}", mend="allow it to central's token")
        if status in (400, 404, 405):
            raise ConfigError(f"the provider has nothing to answer for {path} (status {status})", mend="see [log.transit]")
        if status >= 429:
            raise ProviderUnavailable(f"the provider of the signing key answers with {status}", mend="is it sealed?")
        try:
            found = answer.json()
        except ValueError:
            found = None
        if status != 200 or not isinstance(found, dict):
            raise ProtocolError(f"the provider's answer for {path} is not one (status {status})", mend="see log.transit.address")
        return found


def _lease(answer: Json) -> tuple[str, float]:
    """Return the token of a login and how many seconds it lasts, 0 for one without an end."""
    try:
        token, lease = answer["auth"]["client_token"], answer["auth"]["lease_duration"]
    except (KeyError, TypeError):
        token = lease = None
    if not (isinstance(token, str) and token.isprintable() and isinstance(lease, int) and lease >= 0):
        raise ProtocolError("the provider's answer to a login has no token", mend="see log.transit.address")
    return token, float(lease)


def _credential(path: str) -> str:
    """Return what a file of ours holds. Raises ``ConfigError`` where others could read it, or it cannot be sent."""
    try:
        with Path(path).open("rb") as file:
            check_ours(Path(path), os.fstat(file.fileno()), forbidden=0o077)
            text = file.read(LARGEST_CREDENTIAL).decode("ascii").strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise ConfigError(f"{path} holds no credential")
    return text
