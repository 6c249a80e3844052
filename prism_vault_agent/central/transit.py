"""Signing with an Ed25519 key in the transit engine of OpenBao or Vault. The key never leaves it; central may ask, not keep.

One version of the key signs. To rotate the key in the engine changes nothing: the new version is another key, which no agent
knows, so it signs only once the configuration names it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import structlog

from prism_vault_agent.central.provider import Provider
from prism_vault_agent.errors import ConfigError, IntegrityError, ProtocolError
from prism_vault_agent.proof.keys import VerifyingKey, from_base64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prism_vault_agent.central.log_settings import Transit

KIND: Final = "ed25519"


class TransitSigner:
    """A key in transit, whose public half was fetched at the start and verifies everything that it signs since."""

    def __init__(self, settings: Transit) -> None:
        """Fetch the public key. Raises what :meth:`Provider.ask` raises, and ``ConfigError`` for a key of another kind."""
        self._settings = settings
        self._provider = Provider(settings)
        self._path = f"{settings.mount.strip('/')}/sign/{settings.key}"
        self._mark = f"vault:v{settings.version}:"
        try:
            self._key = VerifyingKey(settings.name, self._public())
        except BaseException:
            self.close()
            raise

    @property
    def verifying_key(self) -> VerifyingKey:
        """The public key of the configured version, under the log's name."""
        return self._key

    @property
    def at_hand(self) -> bool:
        """False: each signing is a request."""
        return False

    def sign_many(self, texts: Sequence[bytes]) -> list[bytes]:
        """Return the signature of each text, from one request. Raises a ``PrismVaultError`` where there are none that verify."""
        inputs = [{"input": base64.b64encode(text).decode()} for text in texts]
        body = {"batch_input": inputs, "key_version": self._settings.version}
        answer = self._provider.ask("POST", self._path, body)
        signatures = [self._signature(each) for each in _results(answer, len(texts))]
        if not all(map(self._key.verifies, texts, signatures)):
            raise IntegrityError(
                f"what signs as {self._settings.key} in transit is not the key {self._key.name}+{self._key.key_hash.hex()}",
                mend="somebody has put another in its place: bring back the old one",
            )
        return signatures

    def close(self) -> None:
        """Close the connections to the provider."""
        self._provider.close()

    def _public(self) -> bytes:
        """Return the public key of the configured version."""
        name, version = self._settings.key, self._settings.version
        data = self._provider.ask("GET", f"{self._settings.mount.strip('/')}/keys/{name}").get("data")
        if not isinstance(data, dict) or not isinstance(data.get("keys"), dict):
            raise ProtocolError(f"the provider does not describe the transit key {name}", mend="see log.transit.address")
        if data.get("type") != KIND or data.get("derived"):
            raise ConfigError(
                f"the transit key {name} is not of the type {KIND}", mend=f"bao write -f transit/keys/{name} type={KIND}"
            )
        found = data["keys"].get(str(version))
        public = from_base64(str(found.get("public_key"))) if isinstance(found, dict) else b""
        if len(public) != 32:
            raise ConfigError(
                f"the transit key {name} has no version {version}, but {', '.join(map(str, data['keys']))}",
                mend="say in log.transit.version which one signs",
            )
        if data.get("latest_version") != version:
            structlog.get_logger("signing").warning("transit_key_was_rotated", signs=version, latest=data.get("latest_version"))
        return public

    def _signature(self, result: Any) -> bytes:
        """Return the signature that one result holds; no bytes where it holds none."""
        text = result.get("signature") if isinstance(result, dict) else None
        return from_base64(text.removeprefix(self._mark)) if isinstance(text, str) and text.startswith(self._mark) else b""


def _results(answer: dict[str, Any], expected: int) -> list[Any]:
    """Return the results of a batch. Raises ``ProtocolError`` where there are not as many as were asked for."""
    data = answer.get("data")
    results = data.get("batch_results") if isinstance(data, dict) else None
    if not isinstance(results, list) or len(results) != expected:
        raise ProtocolError("the provider did not answer for each text that was to be signed", mend="see log.transit.address")
    return results
