"""Values that a key of transit decrypts: all of one key in one request, each with the version of the key that it takes."""

from __future__ import annotations

import binascii

from prism_vault_agent.errors import ConfigError, ProtocolError, SecretNotFound
from prism_vault_agent.model import Lease
from prism_vault_agent.vault import fields, kv
from prism_vault_agent.vault.refusal import refusal
from prism_vault_agent.wanted.decryption import CIPHERTEXT, Decryption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from prism_vault_agent.vault.kv import Place
    from prism_vault_agent.vault.transport import Answer, Transport
    from prism_vault_agent.wanted.decryption import Ciphertext

TOO_OLD = "version is disallowed by policy"
NO_KEY = "encryption key not found"


def decrypt(
    transport: Transport,
    token: str,
    place: Place,
    secrets: Mapping[Place, Mapping[str, Any]],
    deadline: float,
) -> tuple[dict[str, str | bytes], tuple[Lease, ...]]:
    """Return the values by their keys, those that are no UTF-8 as bytes, and for each version of the key that was used a lease.

    ``secrets`` are what was read where the ciphertexts are kept. Decrypting changes nothing, so it is asked for again where the
    answer was lost.

    Raises:
        SecretNotFound: ``no_such_key`` of the secret that keeps a ciphertext; ``no_such_path`` where the key of transit is gone;
            ``deleted`` where it decrypts that version no longer.
        ConfigError: no ciphertext, not of this key, or another context.
        Denied, TokenExpired: as ``refusal``; and as ``Transport.request``.
    """
    wanted = place.wanted
    assert isinstance(wanted, Decryption)
    if place.version:
        raise ConfigError(f"{place}: a decrypted value has no versions", mend="pin the ciphertext's")
    inputs, versions = [], []
    for each in wanted.ciphertexts:
        text, version = _ciphertext(each, place, secrets)
        more = {"context": each.context, "associated_data": each.associated_data}
        inputs.append({"ciphertext": text, **{name: value for name, value in more.items() if value}})
        versions.append(version)
    body = {"batch_input": inputs}
    answer = transport.request("POST", place.path, token=token, body=body, deadline=deadline, repeatable=True)
    if answer.status == 403:
        raise refusal(transport, token, str(place), deadline=deadline, mend="grant update on it to the agent's role")
    values = {
        each.key: _plaintext(each, place, result, version)
        for each, result, version in zip(wanted.ciphertexts, _results(place, answer, len(inputs)), versions, strict=True)
    }
    return values, tuple(Lease(place.path, version) for version in sorted(set(versions)))


def _ciphertext(each: Ciphertext, place: Place, secrets: Mapping[Place, Mapping[str, Any]]) -> tuple[str, int]:
    """Return a ciphertext and the version of the key that it was made with."""
    text: object = each.text
    if each.source:
        found = secrets[kv.Place(each.source.path, each.source.version)]
        key = each.source.key or ""
        if key not in found:
            raise kv.no_such_key(each.source)
        text = found[key]
    match = CIPHERTEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        told = f"{each.source or f'the ciphertext of {place}#{each.key}'} is not a ciphertext of transit"
        raise ConfigError(told, mend="store there what transit/encrypt answers: vault:v1:...", reason="bad_ciphertext")
    return match[0], int(match[1])


def _results(place: Place, answer: Answer, count: int) -> list[Any]:
    """Return what was answered of each ciphertext; 400 says that one of them could not be decrypted, or none."""
    if answer.status == 404 or NO_KEY in str((answer.data or {}).get("errors")):
        raise SecretNotFound(f"{place}: there is no such key of transit", mend="check its name", reason="no_such_path")
    data = (answer.data or {}).get("data")
    results = data.get("batch_results") if isinstance(data, dict) else None
    if not isinstance(results, list) or len(results) != count:
        if answer.ok:
            raise ProtocolError("the answer's field batch_results is not that of what was asked", reason="malformed_answer")
        raise ConfigError(
            f"the engine refuses {place} ({answer.status})", mend="check that it is the decrypt path of a transit key"
        )
    return results


def _plaintext(each: Ciphertext, place: Place, result: object, version: int) -> str | bytes:
    if not isinstance(result, dict):
        raise ProtocolError("the answer's field batch_results is not a list of objects", reason="malformed_answer")
    told = f"{place}#{each.key}" + (f", kept at {each.source}," if each.source else "")
    why = fields.text(result, "error", "")
    if TOO_OLD in why:
        raise SecretNotFound(
            f"{told} takes version {version} of the key, which decrypts no more (min_decryption_version)",
            mend="store a rewrapped ciphertext, or lower min_decryption_version",
            reason="deleted",
        )
    if why:
        raise ConfigError(
            f"{told} cannot be decrypted with this key",
            mend="check the key, context and associated_data",
            reason="bad_ciphertext",
        )
    try:
        plain = binascii.a2b_base64(fields.text(result, "plaintext"), strict_mode=True)
    except ValueError:
        raise ProtocolError("the answer's field plaintext is not base64", reason="malformed_answer") from None
    try:
        return plain.decode()
    except UnicodeDecodeError:
        return plain
