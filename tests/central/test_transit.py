"""Signing in the transit engine of a real OpenBao: the key stays there, one version signs, and central goes on without it."""

from __future__ import annotations

import json
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from prism_vault_agent.central.config import load
from prism_vault_agent.central.log_settings import Transit
from prism_vault_agent.central.transit import TransitSigner
from prism_vault_agent.errors import ConfigError, Denied, IntegrityError, PrismVaultError, ProtocolError, ProviderUnavailable
from prism_vault_agent.proof.keys import SigningKey, VerifyingKey, from_base64, to_base64
from prism_vault_agent.proof.note import open_checkpoint
from prism_vault_agent.proof.receipt import check_receipt
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.certificates import Tls
from tests.support.fake_server import FakeServer, always, answer, in_turn, reset
from tests.support.openbao import OpenBao
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_server import Behaviour

NAME = "log.example/transit"


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """Return an OpenBao with TLS that keeps its data, with a transit engine and what central may do with a key in it."""
    tls = Tls(tmp_path_factory.mktemp("pki"))
    with OpenBao(tmp_path_factory.mktemp("bao"), tls=tls) as server:
        server.must("POST", "sys/mounts/transit", {"type": "transit"})
        server.policy(
            "sign-log",
            'path "transit/sign/*" { capabilities = ["update"] }\npath "transit/keys/*" { capabilities = ["read"] }',
        )
        yield server


class Key:
    """A new Ed25519 key in transit, and the configuration that signs with it."""

    def __init__(self, bao: OpenBao, name: str) -> None:
        self.bao = bao
        self.name = name
        self.make()

    def make(self) -> None:
        """Make the key."""
        self.bao.must("POST", f"transit/keys/{self.name}", {"type": "ed25519", "deletable": True})
        self.bao.must("POST", f"transit/keys/{self.name}/config", {"deletion_allowed": True})

    def replace(self) -> None:
        """Put another key of the same name in its place."""
        self.bao.must("DELETE", f"transit/keys/{self.name}")
        self.make()

    def public(self, version: int = 1) -> VerifyingKey:
        """Return the public key as OpenBao tells it to an operator."""
        described = self.bao.must("GET", f"transit/keys/{self.name}")
        return VerifyingKey(NAME, from_base64(described["data"]["keys"][str(version)]["public_key"]))

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return ``[log.transit]`` with a token of its own, unless ``more`` says how to log in."""
        assert self.bao.tls is not None
        told = {"address": self.bao.address, "key": self.name, "name": NAME, "ca_file": str(self.bao.tls.ca_file)}
        if "role_id_file" not in more and "token_file" not in more:
            more["token_file"] = str(self.bao.credential(f"{self.name}.token", self.bao.token(["sign-log"])))
        return {**told, **more}

    def approle(self, **options: Any) -> dict[str, Any]:
        """Return ``[log.transit]`` that logs in with AppRole."""
        role_id, secret_id = self.bao.approle(self.name, ["sign-log"], **options)
        return self.settings(role_id_file=str(role_id), secret_id_file=str(secret_id))


@pytest.fixture
def key(bao, request) -> Key:
    """Return a key for the test alone."""
    return Key(bao, f"k{abs(hash(request.node.name)):x}")


@pytest.fixture
def opened() -> Iterator[list[TransitSigner]]:
    """Close the signers of a test."""
    signers: list[TransitSigner] = []
    yield signers
    for each in signers:
        each.close()


def signer(opened: list[TransitSigner], settings: dict[str, Any]) -> TransitSigner:
    """Return a signer in this process."""
    opened.append(TransitSigner(Transit(**settings)))
    return opened[-1]


def appended(central: CentralProcess) -> dict[str, Any]:
    """Append a row and return the answer."""
    host = Host(central)
    answer: dict[str, Any] = host.send(host.make("reserved")).json()
    assert answer["appended"]
    return answer


def believe(answer: dict[str, Any], key: VerifyingKey) -> None:
    """Raise unless the receipt is by ``key``."""
    receipt = answer["receipt"]
    rows = [(answer["n"], bytes.fromhex(answer["leaf"]))]
    check_receipt(key, from_base64(receipt["signature"]), receipt["origin"], receipt["at"], rows)


def proof(central: CentralProcess, n: int) -> httpx2.Response:
    """Ask for the proof of a row."""
    return Host(central).client.get(f"/v1/audit/proof/{n}")


def note(central: CentralProcess, n: int) -> str:
    """Return the newest checkpoint once it is about row ``n``."""
    wait_until(lambda: proof(central, n).status_code == 200, timeout=30)
    return str(proof(central, n).json()["note"])


@pytest.mark.parametrize("login", ["token", "approle"])
def test_central_signs_in_transit(tmp_path, key, login):
    """Checkpoints and receipts verify with the public key that OpenBao tells, whichever way central logs in."""
    settings = key.settings() if login == "token" else key.approle()
    with CentralProcess(tmp_path, more={"log": {"transit": settings}}) as central:
        answer = appended(central)
        signed = note(central, answer["n"])

    believe(answer, key.public())
    assert open_checkpoint(signed, NAME, key.public()).size == 1
    assert not central.database.with_name("signing.key").exists()


def test_a_rotated_key_signs_only_once_the_configuration_names_it(tmp_path, key):
    """After a rotation the first version goes on signing, also after a restart; then the second one, for the same origin."""
    settings = key.settings()
    central = CentralProcess(tmp_path, more={"log": {"transit": settings}})
    with central:
        key.bao.must("POST", f"transit/keys/{key.name}/rotate", {})
        believe(appended(central), key.public(1))
    with central:
        believe(appended(central), key.public(1))
        assert any("transit_key_was_rotated" in line for line in central.log)
    central.set(log={"transit": {**settings, "version": 2}})
    with central:
        answer = appended(central)
        believe(answer, key.public(2))
        open_checkpoint(note(central, answer["n"]), NAME, key.public(2))


def test_another_key_in_its_place_signs_nothing(tmp_path, key):
    """Where somebody replaces the key in transit, what it signs is not given out: no receipt, no checkpoint, and it is logged."""
    with CentralProcess(tmp_path, more={"log": {"transit": key.settings()}}) as central:
        before = appended(central)
        note(central, before["n"])
        key.replace()
        after = appended(central)
        wait_until(lambda: any("sequencing_failed" in line for line in central.log))
        newest = Host(central).client.get("/v1/audit/checkpoint").json()

    assert after["receipt"] is None
    assert newest["size"] == 1
    assert any("receipts_not_signed" in line and "is not the key" in line for line in central.log)


@pytest.mark.parametrize("fault", ["pause", "seal", "kill"])
def test_rows_are_acknowledged_while_the_key_is_away(tmp_path, key, fault):
    """While OpenBao hangs, is sealed or gone, answers come without a receipt; when it is back, checkpoints cover those rows."""
    bao = key.bao
    mend = {"pause": bao.resume, "seal": bao.unseal, "kill": bao.restart}[fault]
    with CentralProcess(tmp_path, more={"log": {"transit": key.settings()}}) as central:
        believe(appended(central), key.public())
        getattr(bao, fault)()
        try:
            missed = [appended(central) for _ in range(3)]
        finally:
            mend()
        signed = note(central, missed[-1]["n"])
        wait_until(lambda: appended(central)["receipt"] is not None)

    assert [answer["receipt"] for answer in missed] == [None] * 3
    assert open_checkpoint(signed, NAME, key.public()).size >= 4
    assert any("receipts_not_signed" in line for line in central.log)


def test_a_key_that_is_away_at_the_start_is_told(tmp_path, key):
    """Without its public key central does not start: one line, and a status that a service manager tries again."""
    settings = {**key.settings(), "address": "https://127.0.0.1:1"}
    central = CentralProcess(tmp_path, more={"log": {"transit": settings}})
    with pytest.raises(AssertionError, match="does not answer") as told:
        central.start()

    assert "Traceback" not in str(told.value)


def test_a_token_is_had_anew_where_it_was_revoked(key, opened):
    """With AppRole, a revoked token costs one login; with a token file, what is in the file now is used."""
    by_approle, settings = signer(opened, key.approle()), key.settings()
    by_file = signer(opened, settings)
    for accessor in key.bao.must("LIST", "auth/token/accessors")["data"]["keys"]:
        policies = key.bao.must("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]["policies"]
        if "sign-log" in policies:
            key.bao.must("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    with pytest.raises(Denied):
        by_file.sign_many([b"text"])
    key.bao.credential(f"{key.name}.token", key.bao.token(["sign-log"]))

    for each in (by_approle, by_file):
        assert each.verifying_key.verifies(b"text", each.sign_many([b"text"])[0])


def test_a_token_is_had_anew_before_it_ends(key, opened):
    """A token of one second signs for as long as central runs, with AppRole and as a periodic token in a file."""
    periodic = key.bao.credential(f"{key.name}.periodic", key.bao.token(["sign-log"], period="2s"))
    signers = [
        signer(opened, key.approle(token_ttl="1s", token_max_ttl="1s")),
        signer(opened, key.settings(token_file=str(periodic))),
    ]
    first = [each._provider._until for each in signers]
    for each, until in zip(signers, first, strict=True):
        wait_until(partial(_signs_after, each, until), timeout=30)

    assert all(each._provider._until > until for each, until in zip(signers, first, strict=True))


def test_many_texts_are_one_request(key, opened):
    """A batch is signed in order, each text by itself, also an empty one and one of a thousand rows."""
    texts = [b"", b"one", bytes(100_000), *(str(number).encode() for number in range(250))]
    signing = signer(opened, key.settings())
    signatures = signing.sign_many(texts)

    assert all(map(key.public().verifies, texts, signatures))
    assert len(set(signatures)) == len(texts)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"key": "absent"}, ConfigError, "status 404"),
        ({"mount": "absent"}, Denied, "absent/keys"),
        ({"version": 7}, ConfigError, "no version 7, but 1"),
        ({"token_file": "/nonexistent"}, ConfigError, "No such file"),
        ({"ca_file": "/etc/hostname"}, ConfigError, "holds no certificates"),
        ({"ca_file": ""}, ProviderUnavailable, "ConnectError"),
        ({"key": "aes"}, ConfigError, "not of the type ed25519"),
        ({"key": "derived"}, ConfigError, "not of the type ed25519"),
    ],
)
def test_what_cannot_sign_is_refused_at_the_start(key, opened, changes, error, told):
    """A key, mount, version, credential or authority that is wrong is told in one line that says where."""
    key.bao.must("POST", "transit/keys/aes", {"type": "aes256-gcm96"})
    key.bao.must("POST", "transit/keys/derived", {"type": "ed25519", "derived": True})
    with pytest.raises(error, match=told):
        signer(opened, {**key.settings(), **changes})


def test_a_token_that_may_not_sign_is_told(key, opened):
    """A policy that lets central read the key and not sign with it is told with the path that it needs."""
    key.bao.policy("only-read", 'path "transit/keys/*" { capabilities = ["read"] }')
    token = key.bao.credential(f"{key.name}.token", key.bao.token(["only-read"]))
    signing = signer(opened, key.settings(token_file=str(token)))

    with pytest.raises(Denied, match=f"transit/sign/{key.name}"):
        signing.sign_many([b"text"])


def test_a_secret_id_that_does_not_hold_is_told(key, opened):
    """A refused login says which credential to renew, and repeats none."""
    settings = key.approle()
    wrong = key.bao.credential("wrong.secret-id", "not-a-secret-id")
    with pytest.raises(Denied, match="role id and secret id") as refused:
        signer(opened, {**settings, "secret_id_file": str(wrong)})

    assert "not-a-secret-id" not in refused.value.line()


SIGNING = SigningKey.generate(NAME)
DESCRIBED = {
    "data": {
        "type": "ed25519",
        "derived": False,
        "latest_version": 1,
        "keys": {"1": {"public_key": to_base64(SIGNING.verifying_key.public)}},
    }
}
RENEWED = answer(json.dumps({"auth": {"client_token": "t", "lease_duration": 0}}).encode())
GOOD = f"vault:v1:{to_base64(SIGNING.sign(b'text'))}"


def batch(*results: object) -> bytes:
    """Return the answer that has these results."""
    return answer(json.dumps({"data": {"batch_results": results}}).encode())


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (batch(), ProtocolError),
        (batch({"signature": GOOD}, {"signature": GOOD}), ProtocolError),
        (answer(b'{"data": {}}'), ProtocolError),
        (answer(b'{"data": [1]}'), ProtocolError),
        (answer(b"[]"), ProtocolError),
        (answer(b"<html>"), ProtocolError),
        (answer(b"", "204 No Content"), ProtocolError),
        (answer(b"", "307 Temporary Redirect", "Location: http://127.0.0.1:1/"), ProtocolError),
        (answer(b'{"errors": ["x"]}', "400 Bad Request"), ConfigError),
        (answer(b'{"errors": ["x"]}', "403 Forbidden"), Denied),
        (answer(b"", "429 Too Many Requests"), ProviderUnavailable),
        (answer(b"", "473 Standby"), ProviderUnavailable),
        (answer(b"", "503 Service Unavailable"), ProviderUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", ProviderUnavailable),
        (batch({"error": "key not found"}), IntegrityError),
        (batch({"signature": GOOD.replace("v1", "v2")}), IntegrityError),
        (batch({"signature": GOOD[:-4]}), IntegrityError),
        (batch({"signature": f"vault:v1:{to_base64(SIGNING.sign(b'texts'))}"}), IntegrityError),
        (batch({"signature": 7}), IntegrityError),
        (batch("vault"), IntegrityError),
    ],
)
def test_an_answer_that_is_no_signature_signs_nothing(tmp_path, opened, response, error):
    """Whatever else a server answers is a typed error: never a traceback, never a signature that does not verify."""
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("t")
    with FakeServer(in_turn(RENEWED, answer(json.dumps(DESCRIBED).encode()), response)) as server:
        signing = signer(opened, {"address": server.address, "key": "k", "name": NAME, "token_file": str(token)})
        if response.endswith(b"{"):
            server.behave = cut(response)
        with pytest.raises(error) as raised:
            signing.sign_many([b"text"])

        server.behave = always(batch({"signature": GOOD}))
        assert isinstance(raised.value, PrismVaultError)
        assert signing.sign_many([b"text"]) == [SIGNING.sign(b"text")]
        server.behave = reset
        with pytest.raises(ProviderUnavailable):
            signing.sign_many([b"text"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"address": "http://vault.example:8200"}, "in clear"),
        ({"address": "vault.example"}, "log.transit.address"),
        ({"token_file": ""}, "either token_file"),
        ({"role_id_file": "/r", "secret_id_file": "/s"}, "either token_file"),
        ({"token_file": "", "role_id_file": "/r"}, "either token_file"),
        ({"name": "two words"}, "without spaces"),
        ({"version": 0}, "log.transit.version"),
        ({"key": "a/b"}, "log.transit.key"),
    ],
)
def test_transit_is_configured_as_a_whole(tmp_path, changes, told):
    """What is missing, in excess or would send the token in clear is refused before anything is asked."""
    settings = {"address": "http://127.0.0.1:1", "key": "k", "name": NAME, "token_file": "/t", **changes}
    central = CentralProcess(tmp_path, more={"log": {"transit": settings}})
    central.write_config()
    with pytest.raises(ConfigError, match=told):
        load(central.config_file)


def cut(response: bytes) -> Behaviour:
    """Send a part of an answer and end the connection."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(response)
        return False

    return behave


def _signs_after(signing: TransitSigner, until: float) -> bool:
    """Sign, and tell whether that took another token."""
    return signing.verifying_key.verifies(b"text", signing.sign_many([b"text"])[0]) and signing._provider._until > until
