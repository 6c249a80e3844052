"""Who central believes: OpenBao's identity tokens and hashed service tokens, and nothing that only looks like them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.openbao import OpenBao

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AUDIENCE = "prism-vault-central"


class Keys:
    """An issuer of our own, for tokens that OpenBao would never sign: it serves public keys and counts who asks."""

    def __init__(self) -> None:
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.published = [self._public("one", self.ec, "ES256"), self._public("two", self.rsa, "RS256")]
        self.asked = 0
        self.up = True
        keys = self

        class Serve(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.asked += 1
                content = json.dumps({"keys": keys.published}).encode()
                self.send_response(200 if keys.up else 500)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Serve)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/identity/oidc"

    @staticmethod
    def _public(kid: str, key: Any, algorithm: str) -> dict[str, Any]:
        public = key.public_key()
        made = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
        return {**made, "kid": kid, "alg": algorithm, "use": "sig"}

    def claims(self, **more: Any) -> dict[str, Any]:
        """Return claims that hold; ``more`` replaces some, None removes one."""
        now = int(time.time())
        made = {"iss": self.url, "aud": AUDIENCE, "sub": "entity-1", "iat": now, "exp": now + 300, **more}
        return {name: value for name, value in made.items() if value is not None}

    def token(self, *, kid: str = "one", key: Any = None, algorithm: str = "ES256", **more: Any) -> str:
        """Return a signed token."""
        return jwt.encode(self.claims(**more), key or self.ec, algorithm=algorithm, headers={"kid": kid})


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    issuer = Keys()
    yield issuer
    issuer.server.shutdown()
    issuer.thread.join()
    issuer.server.server_close()


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[CentralProcess]:
    """Return a central that believes ``keys``, with entity-1 as server1."""
    with CentralProcess(
        tmp_path_factory.mktemp("trusting"),
        issuer={"url": keys.url, "audience": AUDIENCE},
        subjects=[{"subject": "entity-1", "host": "server1", "projects": ["prism"]}],
    ) as running:
        yield running


def code(central: CentralProcess, token: str) -> str:
    """Return ``ok`` where the token is believed, else the code of the problem."""
    with central.client(token) as client:
        answer = client.get("/v1/audit/head")
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    return "ok" if answer.status_code == 200 else str(answer.json()["code"])


def test_an_identity_token_of_openbao_is_its_host(tmp_path: Path):
    """A host logs in at a real OpenBao, mints an identity token, and appends as the host that its entity is configured as."""
    with OpenBao(tmp_path / "bao") as bao:
        bao.identity_role("central", audience=AUDIENCE)
        bao.policy("mint", 'path "identity/oidc/token/central" { capabilities = ["read"] }')
        role_file, secret_file = bao.approle("server1", ["mint"])
        login = bao.must(
            "POST", "auth/approle/login", {"role_id": role_file.read_text(), "secret_id": secret_file.read_text()}, token=""
        )["auth"]
        token = bao.must("GET", "identity/oidc/token/central", token=login["client_token"])["data"]["token"]
        issuer = {"url": jwt.decode(token, options={"verify_signature": False})["iss"], "audience": AUDIENCE}
        subjects = [{"subject": login["entity_id"], "host": "server1", "projects": ["prism"]}]
        with CentralProcess(tmp_path, issuer=issuer, subjects=subjects) as central:
            host = Host(central, token=token)
            reservation = host.reserve()
            host.chain.host = "server2"
            forged = host.send(host.make("reserved"))

            assert [event["host_id"] for event in central.events(reservation=reservation)] == ["server1"]
            assert forged.status_code == 403


def test_both_kinds_of_keys_are_believed(trusting, keys):
    """Tokens signed with ES256 and RS256 by published keys are believed, again and again."""
    tokens = [keys.token(), keys.token(kid="two", key=keys.rsa, algorithm="RS256")]

    assert [code(trusting, token) for token in (*tokens, *tokens)] == ["ok"] * 4


def unsigned(header: dict[str, str], claims: dict[str, Any], key: bytes | None) -> str:
    """Return a token made by hand: without a signature, or with HMAC under ``key``."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.digest(key, b".".join(parts), hashlib.sha256) if key else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def test_a_token_without_a_signature_is_not_believed(trusting, keys):
    """The algorithm none, in any spelling, is refused."""
    for name in ("none", "None", "NONE"):
        assert code(trusting, unsigned({"alg": name, "kid": "one"}, keys.claims(), None)) == "algorithm"


def test_a_public_key_is_not_a_shared_secret(trusting, keys):
    """A token signed with HMAC under the text of the public key is refused."""
    public = json.dumps(keys.published[0]).encode()

    assert code(trusting, unsigned({"alg": "HS256", "kid": "one"}, keys.claims(), public)) == "algorithm"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"aud": "someone-else"}, "wrong_audience"),
        ({"iss": "http://127.0.0.1:1/v1/identity/oidc"}, "wrong_issuer"),
        ({"exp": int(time.time()) - 60}, "token_expired"),
        ({"iat": int(time.time()) + 86_400}, "token_invalid"),
        ({"exp": None}, "token_invalid"),
        ({"sub": None}, "token_invalid"),
        ({"aud": None}, "token_invalid"),
        ({"iat": None}, "token_invalid"),
        ({"sub": "entity-2"}, "unknown_subject"),
    ],
)
def test_a_token_with_a_wrong_claim_is_not_believed(trusting, keys, more, expected):
    """Another audience or issuer, a time that is not now, a claim that is missing or a subject without a host: 401 says which."""
    assert code(trusting, keys.token(**more)) == expected


def test_a_signature_of_another_key_is_not_believed(trusting, keys):
    """A token that names a published key and is signed with another one is refused."""
    assert code(trusting, keys.token(key=ec.generate_private_key(ec.SECP256R1()))) == "token_invalid"


def test_unknown_keys_cannot_flood_the_issuer(trusting, keys):
    """Tokens with made-up key ids are refused, and the issuer is asked at most six times a minute for them."""
    before = keys.asked
    codes = {code(trusting, keys.token(kid=f"made-up-{turn}")) for turn in range(30)}

    assert codes == {"unknown_key"}
    assert keys.asked - before <= 6
    assert code(trusting, keys.token(sub="entity-1", iat=int(time.time()) - 1)) == "ok"


def test_a_new_key_is_found(tmp_path, keys):
    """A token signed with a key that was published after central fetched the keys is believed."""
    with CentralProcess(
        tmp_path,
        issuer={"url": keys.url, "audience": AUDIENCE},
        subjects=[{"subject": "entity-1", "host": "server1", "projects": ["prism"]}],
    ) as central:
        assert code(central, keys.token()) == "ok"
        new = ec.generate_private_key(ec.SECP256R1())
        keys.published = [*keys.published, keys._public("three", new, "ES256")]

        assert code(central, keys.token(kid="three", key=new)) == "ok"


def test_without_any_keys_central_says_retry(tmp_path, keys):
    """While the issuer cannot be asked and no key is known, a token is neither believed nor refused: 503."""
    keys.up = False
    try:
        with CentralProcess(
            tmp_path,
            issuer={"url": keys.url, "audience": AUDIENCE},
            subjects=[{"subject": "entity-1", "host": "server1", "projects": ["prism"]}],
        ) as central:
            assert code(central, keys.token()) == "issuer_unavailable"
            keys.up = True
            assert code(central, keys.token()) == "ok"
    finally:
        keys.up = True


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic dTpw", "Bearer wrong", "Bearer a.b.c", "Bearer " + "x" * 9000])
def test_without_a_credential_nothing_is_told(central, authorization):
    """No credential, another scheme, a wrong token and one that is too long get 401 on every route but the health ones."""
    with central.client() as client:
        client.headers["authorization"] = authorization
        reads = [client.get("/v1/audit/events"), client.get("/v1/audit/head")]
        writes = [client.post(path, content=b"{}") for path in ("/v1/audit/reservations", "/v1/audit/events:batch")]

    assert [answer.status_code for answer in (*reads, *writes)] == [401] * 4


def test_an_operator_cannot_append(central):
    """Only the agent of a host appends: an operator's token gets 403."""
    host = Host(central, token=central.operator_token)

    answer = host.send(host.make("reserved"))

    assert (answer.status_code, answer.json()["code"]) == (403, "role")


def test_the_identity_is_never_taken_from_elsewhere(central, host):
    """Headers and fields that claim a host, a project or a role change nothing."""
    claims = {"X-Forwarded-For": "10.0.0.1", "X-Host": "server2", "X-Role": "operator", "X-Project": "other"}

    answer = host.client.get("/v1/audit/head", headers=claims)

    assert answer.json()["host"] == "server1"


def test_two_credentials_are_one_too_many(host):
    """A request with two Authorization headers is refused: a proxy might have looked at the other one."""
    body = host.make("reserved")
    headers = [("Authorization", host.client.headers["authorization"]), ("Authorization", "Bearer other")]
    del host.client.headers["authorization"]

    assert host.client.post("/v1/audit/reservations", content=body, headers=headers).status_code == 400
