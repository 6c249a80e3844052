"""Logging in to a real OpenBao by each method."""

from __future__ import annotations

import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from prism_vault_agent.config.settings import AuthSettings, TlsFiles
from prism_vault_agent.errors import ConfigError, Denied, TokenExpired
from prism_vault_agent.vault import login, session
from tests.support.certificates import Tls
from tests.support.counting_proxy import CountingProxy
from tests.support.logins import approle, log_in, refusal
from tests.support.openbao import OpenBao
from tests.support.token_review import TokenReview
from tests.support.vault import soon, transport

PEM = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_approle(bao: OpenBao) -> None:
    """A role-id and a secret-id give a token with its facts, which a message never shows."""
    token = log_in(bao, approle(*bao.approle("login", ["read-secret"], token_ttl="20m")))
    assert (token.seconds, token.renewable, token.orphan) == (1200, True, True)
    assert "read-secret" in token.policies
    assert token.accessor
    assert token.entity_id
    assert token.value not in repr(token)
    assert bao.must("GET", "auth/token/lookup-self", token=token.value)["data"]["accessor"] == token.accessor


def test_approle_at_another_mount(bao: OpenBao) -> None:
    """The mount of the method is configurable, with or without its leading ``auth/``."""
    bao.auth("approle", "hosts/lan")
    bao.must("POST", "auth/hosts/lan/role/web", {"token_policies": []})
    role_id = bao.must("GET", "auth/hosts/lan/role/web/role-id")["data"]["role_id"]
    secret_id = bao.must("POST", "auth/hosts/lan/role/web/secret-id", {})["data"]["secret_id"]
    for mount in ("hosts/lan", "auth/hosts/lan/"):
        auth = approle(bao.credential("lan.role", role_id), bao.credential("lan.secret", secret_id), mount=mount)
        assert log_in(bao, auth).accessor


def test_a_wrong_credential_is_refused_once_without_being_shown(bao: OpenBao) -> None:
    """A wrong secret-id is a denial after one request, and its message holds the mount and not the credential."""
    role_id, _ = bao.approle("wrong", [])
    auth = approle(role_id, bao.credential("wrong.secret", "CANARY-secret-id"))
    with CountingProxy(bao.port) as proxy, pytest.raises(Denied) as refused:
        login.log_in(transport(proxy.address), auth, soon())
    assert proxy.lines == ["POST /v1/auth/approle/login"]
    assert refused.value.reason == "login_refused"
    assert refused.value.exit_status == 77
    assert "auth/approle" in refused.value.line()
    assert "CANARY" not in refused.value.line()


def test_a_method_that_is_not_enabled_is_a_refused_login(bao: OpenBao) -> None:
    """A mount that does not exist is told as such a login, naming the mount."""
    role_id, secret_id = bao.approle("nowhere", [])
    assert "auth/nowhere" in refusal(bao, approle(role_id, secret_id, mount="nowhere")).line()


def test_a_used_up_secret_id_is_a_refused_login(bao: OpenBao) -> None:
    """A secret-id of one use logs in once."""
    auth = approle(*bao.approle("once", [], secret_id_num_uses=1))
    log_in(bao, auth)
    assert refusal(bao, auth).reason == "login_refused"


def test_batch_tokens_are_refused(bao: OpenBao) -> None:
    """A token that cannot be revoked is not used; the message says which setting gives the other kind."""
    with pytest.raises(ConfigError) as refused:
        log_in(bao, approle(*bao.approle("batch", [], token_type="batch")))
    assert "token_type=service" in refused.value.line()


def test_jwt(bao: OpenBao) -> None:
    """A JWT signed by the configured key logs in, another does not."""
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    bao.auth("jwt")
    bao.must(
        "POST",
        "auth/jwt/config",
        {"jwt_validation_pubkeys": [key.public_key().public_bytes(*PEM).decode()], "bound_issuer": "prism"},
    )
    role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_ttl": "10m"}
    bao.must("POST", "auth/jwt/role/web", role)
    claims = {"iss": "prism", "aud": "vault", "sub": "web", "exp": int(time.time()) + 60, "iat": int(time.time())}
    good = bao.credential("good.jwt", jwt.encode(claims, key, algorithm="ES256"))
    bad = bao.credential("bad.jwt", jwt.encode(claims, other, algorithm="ES256"))
    assert log_in(bao, AuthSettings("jwt", "jwt", role="web", jwt_file=str(good))).seconds == 600
    assert refusal(bao, AuthSettings("jwt", "jwt", role="web", jwt_file=str(bad))).reason == "login_refused"


def test_kubernetes(bao: OpenBao, tls: Tls) -> None:
    """A service account token that Kubernetes vouches for logs in, also from a file that all in its container may read."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    bao.auth("kubernetes")
    role = {"bound_service_account_names": ["web"], "bound_service_account_namespaces": ["prism"], "token_ttl": "10m"}
    with TokenReview("prism", "web") as cluster:
        config: dict[str, object] = {"kubernetes_host": cluster.address, "token_reviewer_jwt": cluster.service_account_token(key)}
        config |= {"disable_local_ca_jwt": True, "kubernetes_ca_cert": tls.ca_file.read_text()}
        bao.must("POST", "auth/kubernetes/config", config)
        bao.must("POST", "auth/kubernetes/role/web", role)
        bao.must("POST", "auth/kubernetes/role/db", {**role, "bound_service_account_names": ["db"]})
        file = bao.credential("projected", cluster.service_account_token(key))
        file.chmod(0o644)
        assert log_in(bao, AuthSettings("kubernetes", "kubernetes", role="web", jwt_file=str(file))).seconds == 600
        assert cluster.requests
        denied = refusal(bao, AuthSettings("kubernetes", "kubernetes", role="db", jwt_file=str(file)))
        assert denied.reason == "login_refused"


def test_userpass(bao: OpenBao) -> None:
    """A user's name and password file log in, with any letters in the password."""
    bao.auth("userpass")
    bao.must("POST", "auth/userpass/users/web", {"password": 'Pässwörd "1', "token_ttl": "10m"})
    good, bad = bao.credential("good.password", 'Pässwörd "1\n'), bao.credential("bad.password", "CANARY")
    assert log_in(bao, AuthSettings("userpass", "userpass", username="web", password_file=str(good))).seconds == 600
    assert "CANARY" not in refusal(bao, AuthSettings("userpass", "userpass", username="web", password_file=str(bad))).line()


def test_certificate(tls_bao: OpenBao, tls: Tls) -> None:
    """The client certificate of the connection logs in; a connection without one does not."""
    tls_bao.auth("cert")
    role = {"certificate": tls.ca_file.read_text(), "allowed_common_names": ["client.prism.test"], "token_ttl": "10m"}
    tls_bao.must("POST", "auth/cert/certs/web", role)
    ours = TlsFiles(str(tls.ca_file), str(tls.client_cert_file), str(tls.client_key_file))
    auth = AuthSettings("cert", "cert", role="web")
    assert log_in(tls_bao, auth, tls=ours).seconds == 600
    assert log_in(tls_bao, AuthSettings("cert", "cert"), tls=ours).seconds == 600
    assert refusal(tls_bao, auth, tls=TlsFiles(ca_file=str(tls.ca_file))).reason == "login_refused"


def test_token_file(bao: OpenBao) -> None:
    """A token from a file is looked up for its facts; one that never ends has 0 seconds; a dead one is refused."""
    living = bao.token(["default"], ttl="15m", renewable=False)
    file = bao.credential("living.token", living)
    token = log_in(bao, AuthSettings("token_file", "token", token_file=str(file)))
    assert token.value == living
    assert 890 <= token.seconds <= 900
    assert not token.renewable
    root = log_in(bao, AuthSettings("token_file", "token", token_file=str(bao.credential("root.token", bao.root_token))))
    assert root.seconds == 0
    bao.must("POST", "auth/token/revoke", {"token": living})
    dead = refusal(bao, AuthSettings("token_file", "token", token_file=str(file)))
    assert dead.reason == "login_refused"
    assert str(file) in dead.line()
    assert living not in dead.line()


def test_a_batch_token_in_a_file_is_refused(bao: OpenBao) -> None:
    """A batch token is refused however it comes."""
    file = bao.credential("batch.token", bao.token(["default"], type="batch"))
    with pytest.raises(ConfigError):
        log_in(bao, AuthSettings("token_file", "token", token_file=str(file)))


def test_a_namespace_is_logged_in_to_and_stays_apart(bao: OpenBao) -> None:
    """With a namespace set, the login and its token are of that namespace."""
    bao.must("POST", "sys/namespaces/team-a", {})
    bao.auth("approle", namespace="team-a")
    bao.must("POST", "auth/approle/role/inner", {}, namespace="team-a")
    role_id = bao.must("GET", "auth/approle/role/inner/role-id", namespace="team-a")["data"]["role_id"]
    secret_id = bao.must("POST", "auth/approle/role/inner/secret-id", {}, namespace="team-a")["data"]["secret_id"]
    auth = approle(bao.credential("inner.role", role_id), bao.credential("inner.secret", secret_id))
    assert log_in(bao, auth, namespace="team-a/").accessor
    assert refusal(bao, auth).reason == "login_refused"


def test_identity_token(bao: OpenBao) -> None:
    """The provider signs who we are: the entity of the login, for central's audience, for the role's time."""
    bao.identity_role("hosts", audience="central", ttl="5m")
    bao.policy("identity", 'path "identity/oidc/token/hosts" { capabilities = ["read"] }')
    token = log_in(bao, approle(*bao.approle("host-1", ["identity"])))
    client = transport(bao.address)
    signed = login.identity_token(client, token.value, "hosts", soon())
    claims = jwt.decode(signed.value, options={"verify_signature": False})
    assert (claims["sub"], claims["aud"], signed.seconds) == (token.entity_id, "central", 300)
    assert signed.value not in repr(signed)
    with pytest.raises(Denied) as refused:
        login.identity_token(client, token.value, "others", soon())
    assert refused.value.reason == "provider_policy"
    with pytest.raises(Denied) as nobody:
        login.identity_token(client, bao.root_token, "hosts", soon())
    assert nobody.value.reason == "no_identity"


def test_a_dead_token_has_no_identity(bao: OpenBao) -> None:
    """A token that was revoked is told from one that belongs to nobody: a login mends it."""
    token = log_in(bao, approle(*bao.approle("leaving", []))).value
    client = transport(bao.address)
    session.revoke_self(client, token, soon())
    with pytest.raises(TokenExpired):
        login.identity_token(client, token, "hosts", soon())


@pytest.mark.parametrize("method", ["approle", "jwt", "kubernetes", "userpass", "token_file"])
def test_a_missing_credential_file_is_a_configuration_error(method, bao: OpenBao, tmp_path) -> None:
    """Each method names the file that it cannot read, before any request."""
    none = str(tmp_path / "none")
    auth = AuthSettings(
        method, method, role="r", role_id_file=none, jwt_file=none, username="u", password_file=none, token_file=none
    )
    with CountingProxy(bao.port) as proxy, pytest.raises(ConfigError) as refused:
        login.log_in(transport(proxy.address), auth, soon())
    assert proxy.lines == []
    assert none in refused.value.line()
    assert refused.value.exit_status == 78
