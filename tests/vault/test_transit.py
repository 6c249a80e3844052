"""What an answer of transit means, whatever it says; a ciphertext is decrypted or told, and never shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prism_vault_agent.errors import ConfigError, PrismVaultError, ProtocolError, SecretNotFound
from prism_vault_agent.model import Lease
from prism_vault_agent.scope import SecretReference
from prism_vault_agent.vault.kv import Place
from prism_vault_agent.vault.transit import decrypt
from prism_vault_agent.wanted.decryption import Ciphertext, Decryption
from tests.support.fake_server import FakeServer, always, answer, in_turn
from tests.support.vault import soon, transport

SOURCE = SecretReference("secret/web", "enc")
WANTED = Decryption((Ciphertext("a", "vault:v1:YQ", None, "Yw==", ""), Ciphertext("b", "", SOURCE, "", "")))
PLACE = Place("transit/decrypt/app", None, WANTED)
KEPT = {Place("secret/web", None): {"enc": "vault:v3:Yg"}}
GOOD = [{"plaintext": "YQ=="}, {"plaintext": "/w==", "error": ""}]
BAD = "400 Bad Request"


def answered(results: Any, status: str = "200 OK") -> bytes:
    """Return an answer with these results."""
    return answer(json.dumps({"data": {"batch_results": results}}).encode(), status)


def decrypted(*responses: bytes) -> tuple[Any, list[bytes]]:
    """Return what is decrypted with these answers, and the requests."""
    with FakeServer(in_turn(*responses) if len(responses) > 1 else always(*responses)) as server:
        return decrypt(transport(server.address), "token", PLACE, KEPT, soon(5)), server.requests


def test_one_request_decrypts_all_of_a_key():
    """Text is text, other bytes are bytes, and each version of the key that was used is told once."""
    found, requests = decrypted(answered(GOOD))
    assert found == (
        {"a": "a", "b": b"\xff"},
        (Lease("transit/decrypt/app", 1), Lease("transit/decrypt/app", 3)),
    )
    (request,) = requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/transit/decrypt/app ")
    assert json.loads(body) == {"batch_input": [{"ciphertext": "vault:v1:YQ", "context": "Yw=="}, {"ciphertext": "vault:v3:Yg"}]}


def test_an_answer_that_was_lost_is_asked_for_again():
    """Decrypting changes nothing, so a passing failure costs a second request and no error."""
    found, requests = decrypted(answer(b"{}", "503 Service Unavailable"), answered(GOOD))
    assert found[0]["a"] == "a" and len(requests) == 2


@pytest.mark.parametrize(
    ("response", "kind", "told"),
    [
        (answer(b'{"errors": ["encryption key not found"]}', BAD), SecretNotFound, "there is no such key of transit"),
        (answer(b'{"errors": []}', "404 Not Found"), SecretNotFound, "there is no such key of transit"),
        (
            answered([{"error": "ciphertext or signature version is disallowed by policy (too old)"}, {}], BAD),
            SecretNotFound,
            "#a",
        ),
        (answered([GOOD[0], {"error": "CANARY"}], BAD), ConfigError, "vault://secret/web#enc, cannot be decrypted"),
        (answer(b'{"errors": ["CANARY"]}', BAD), ConfigError, "refuses vault://transit/decrypt/app"),
        (answered(GOOD[:1]), ProtocolError, "batch_results"),
        (answered({"a": 1}), ProtocolError, "batch_results"),
        (answered(["CANARY", GOOD[1]]), ProtocolError, "batch_results"),
        (answered([{"plaintext": "CAN@RY"}, GOOD[1]]), ProtocolError, "plaintext is not base64"),
        (answered([{"plaintext": 7}, GOOD[1]]), ProtocolError, "plaintext is not a string"),
        (answered([{"plaintext": "YQ==", "error": 7}, GOOD[1]]), ProtocolError, "error is not a string"),
        (answer(b"{}"), ProtocolError, "batch_results"),
    ],
)
def test_f10_what_is_no_decrypted_value_is_an_error_that_shows_nothing(response, kind, told):
    """An answer that cannot be used ends the read with what is wrong, and quotes neither ciphertext nor answer."""
    with pytest.raises(PrismVaultError) as refused:
        decrypted(response)
    assert isinstance(refused.value, kind) and told in refused.value.message
    assert not any(shown in refused.value.line() for shown in ("CAN", "YQ", "Yg"))


@pytest.mark.parametrize("kept", ["plain", "vault:v0:YQ", "vault:v1:", 7, None, {"a": 1}])
def test_what_is_kept_and_is_no_ciphertext_is_sent_nowhere(kept):
    """A value of another shape is told by where it is kept, before anything is asked."""
    with FakeServer(always(answered(GOOD))) as server:
        with pytest.raises(ConfigError, match="vault://secret/web#enc is not a ciphertext of transit"):
            decrypt(transport(server.address), "token", PLACE, {Place("secret/web", None): {"enc": kept}}, soon(5))
        assert server.requests == []


def test_a_secret_without_the_key_is_told():
    """A secret that lost the key which held the ciphertext is told as one without that key."""
    with FakeServer(always(answered(GOOD))) as server, pytest.raises(SecretNotFound, match="no key of this name"):
        decrypt(transport(server.address), "token", PLACE, {Place("secret/web", None): {}}, soon(5))
