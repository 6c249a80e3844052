"""Client certificates: whom a verified one speaks for, which are refused, and how one goes together with a token."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from prism_vault_agent.central.access.permission import NEEDS
from tests.central.host import OPEN, Host
from tests.support.central import CentralProcess
from tests.support.certificates import Tls
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = timedelta(days=1)
SPIFFE = "spiffe://prism.test/agent/server3"
FAILED = (httpx2.TransportError, ssl.SSLError)


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> Tls:
    """Return the authority of central's own certificate and of its clients'."""
    return Tls(tmp_path_factory.mktemp("tls"))


def configured(tls: Tls, ca_file: Path) -> dict[str, Any]:
    """Return the settings of a central that believes the authorities of ``ca_file``."""
    return {
        "tls_cert": str(tls.cert_file),
        "tls_key": str(tls.key_file),
        "mtls": {"ca_file": str(ca_file)},
        "agents": [
            {"certificate": "server1.prism.test", "host": "server1", "projects": ["prism"]},
            {"certificate": "second.prism.test", "host": "server2", "projects": ["prism"]},
            {"certificate": SPIFFE, "host": "server3", "projects": ["prism"]},
        ],
        "operators": [{"certificate": "ops.prism.test", "name": "ops", "projects": ["prism"]}],
    }


@pytest.fixture(scope="module")
def secured(tmp_path_factory, tls) -> Iterator[CentralProcess]:
    """Return a central that knows three hosts and an operator by certificate, and server1, server2 and two operators by token."""
    agents = {"server1": ["*"], "server2": ["*"]}
    operators = {"ops": ["prism"], "other-ops": ["prism"]}
    more = configured(tls, tls.ca_file)
    with CentralProcess(tmp_path_factory.mktemp("central"), agents=agents, operators=operators, more=more) as running:
        yield running


def issued(tls: Tls, *names: str, ca: trustme.CA | None = None, **options: Any) -> ssl.SSLContext:
    """Return a client's context with a certificate for ``names``, of the authority of ``tls`` unless ``ca`` is another."""
    context = ssl.create_default_context(cafile=tls.ca_file)
    if any("://" in name for name in names):
        _with_uris(tls, names).configure_cert(context)
    elif names:
        (ca or tls.ca).issue_cert(*names, **options).configure_cert(context)
    return context


def _with_uris(tls: Tls, names: tuple[str, ...]) -> trustme.LeafCert:
    """Return a certificate for URIs and DNS names, which trustme issues for DNS names only."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    known = [x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name) for name in names]
    authority = x509.load_pem_x509_certificate(tls.ca.cert_pem.bytes())
    made = (
        x509.CertificateBuilder(authority.subject, x509.Name([]), key.public_key(), x509.random_serial_number(), now, now + DAY)
        .add_extension(x509.SubjectAlternativeName(known), critical=True)
        .sign(load_pem_private_key(tls.ca.private_key_pem.bytes(), None), hashes.SHA256())  # type: ignore[arg-type] # its key is EC
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return trustme.LeafCert(private, made.public_bytes(Encoding.PEM), [])


def client(central: CentralProcess, context: ssl.SSLContext, token: str = "", **headers: str) -> httpx2.Client:
    """Return a client of central with a certificate, a token, or both."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        sent["Authorization"] = f"Bearer {token}"
    made = httpx2.Client(base_url=central.url, headers=sent, verify=context, trust_env=False, timeout=15)
    OPEN.append(made)
    return made


def code(asking: httpx2.Client, path: str = "/v1/audit/head") -> str:
    """Return ``ok`` where the caller may read ``path``, else the status and code of the problem."""
    answer = asking.get(path)
    return "ok" if answer.status_code == 200 else f"{answer.status_code} {answer.json()['code']}"


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (("server1.prism.test",), "server1"),
        (("elsewhere.prism.test", "server1.prism.test"), "server1"),
        ((SPIFFE,), "server3"),
        ((SPIFFE, "server1.prism.test"), "server3"),
        (("spiffe://prism.test/agent/other", "server1.prism.test"), "server1"),
    ],
)
def test_a_certificate_is_its_host(secured, tls, names, known):
    """A known DNS name is its host; a known URI goes before all DNS names; the host appends its own events and no other's."""
    context = issued(tls, *names)
    Host(secured, known, client=client(secured, context)).reserve()
    other = Host(secured, "server2", client=client(secured, context))

    assert other.send(other.make("reserved")).json()["code"] == "host_mismatch"


def test_a_certificate_can_be_an_operators(secured, tls):
    """The operator of a certificate reads the log and appends nothing."""
    with client(secured, issued(tls, "ops.prism.test")) as operator:
        assert code(operator, "/v1/audit/events") == "ok"
        assert code(operator) == "403 role"


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        (("server9.prism.test",), {}, "unknown_certificate"),
        (("SERVER9.prism.test",), {"common_name": "server1.prism.test"}, "unknown_certificate"),
        (("*.prism.test",), {}, "unknown_certificate"),
        (("server1@prism.test",), {}, "unknown_certificate"),
        ((f"{SPIFFE}/more",), {}, "unknown_certificate"),
        (("server1.prism.test", "second.prism.test"), {}, "ambiguous_certificate"),
    ],
)
def test_a_certificate_without_one_known_name_is_nobodys(secured, tls, names, options, told):
    """Another name, the common name, a wildcard, an address of mail, a longer URI, or two known names: 401 says which."""
    assert code(client(secured, issued(tls, *names, **options))) == f"401 {told}"
    assert code(client(secured, issued(tls, *names, **options), secured.agent_tokens["server1"])) == f"401 {told}"


def test_another_authoritys_certificate_ends_the_handshake(secured, tls):
    """A known name in a certificate of an authority that is not in ca_file never reaches a route, not even an open one."""
    with pytest.raises(FAILED):
        client(secured, issued(tls, "server1.prism.test", ca=trustme.CA())).get("/healthz")


@pytest.mark.parametrize(("begins", "ends"), [(-20, -10), (10, 20)])
def test_a_certificate_out_of_its_time_ends_the_handshake(secured, tls, begins, ends):
    """A certificate that has ended, or does not hold yet, is refused."""
    now = datetime.now(UTC)
    times: dict[str, Any] = {"not_before": now + timedelta(days=begins), "not_after": now + timedelta(days=ends)}
    with pytest.raises(FAILED):
        client(secured, issued(tls, "server1.prism.test", **times)).get("/healthz")


def test_a_connection_does_not_outlive_its_certificate(secured, tls):
    """What is asked on an open connection is refused once its certificate has ended."""
    asking = client(secured, issued(tls, "server1.prism.test", not_after=datetime.now(UTC) + timedelta(seconds=4)))
    assert code(asking) == "ok"

    wait_until(lambda: code(asking) == "401 certificate_ended")


def test_no_header_stands_for_a_certificate(secured, tls):
    """Headers in which proxies pass certificates on give nobody anything, with a certificate or without."""
    pem = tls.ca.issue_cert("server1.prism.test").cert_chain_pems[0].bytes().decode()
    forged = {
        "x_client_cert": pem.replace("\n", ""),
        "x_forwarded_client_cert": "By=x;DNS=server1.prism.test",
        "x_ssl_client_verify": "SUCCESS",
        "x_prism_host": "server1",
        "certificate": "server1.prism.test",
    }
    assert code(client(secured, issued(tls), **forged)) == "401 no_credential"
    assert code(client(secured, issued(tls, "server9.prism.test"), **forged)) == "401 unknown_certificate"
    second = Host(secured, "server1", client=client(secured, issued(tls, "second.prism.test"), **forged))
    assert second.send(second.make("reserved")).json()["code"] == "host_mismatch"


def test_without_a_certificate_a_token_does(secured, tls):
    """Certificates are asked for, not demanded: a token alone appends, and nothing alone is 401."""
    Host(secured, client=client(secured, issued(tls), secured.agent_tokens["server1"])).reserve()

    assert code(client(secured, issued(tls))) == "401 no_credential"


@pytest.mark.parametrize(
    ("name", "of", "told"),
    [
        ("server1.prism.test", "server1", "ok"),
        ("server1.prism.test", "server2", "400 two_credentials"),
        ("server1.prism.test", "ops", "400 two_credentials"),
        ("ops.prism.test", "server1", "400 two_credentials"),
        ("ops.prism.test", "other-ops", "400 two_credentials"),
        ("ops.prism.test", "ops", "403 role"),
        ("server1.prism.test", "nobody", "401 unknown_token"),
    ],
)
def test_two_credentials_agree_or_are_refused(secured, tls, name, of, told):
    """A certificate and a token must both hold and speak for one caller; the caller is then the token's."""
    token = {**secured.agent_tokens, **secured.operator_tokens}.get(of, "nobody's token")

    assert code(client(secured, issued(tls, name), token)) == told


def test_an_older_tls_is_not_spoken_with_certificates(secured, tls):
    """Where certificates are asked for, nothing below TLS 1.3 is spoken, whose sessions could be resumed unverified."""
    old = issued(tls, "server1.prism.test")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(FAILED):
        client(secured, old).get("/healthz")


def test_an_authority_that_is_replaced_is_believed_no_more(tmp_path, tls):
    """New connections are verified by ca_file as it is now; a file that is no good changes nothing."""
    theirs = tmp_path / "clients.pem"
    tls.ca.cert_pem.write_to_path(theirs)
    other = trustme.CA()
    old, new = issued(tls, "server1.prism.test"), issued(tls, "server1.prism.test", ca=other)

    def refused(context: ssl.SSLContext) -> bool:
        try:
            return code(client(central, context)) != "ok"
        except FAILED:
            return True

    with CentralProcess(tmp_path, more=configured(tls, theirs)) as central:
        assert (refused(old), refused(new)) == (False, True)
        theirs.write_text("no certificate")
        wait_until(lambda: any("is not certificates in PEM" in line for line in central.log))
        assert (refused(old), refused(new)) == (False, True)
        other.cert_pem.write_to_path(theirs)
        wait_until(lambda: not refused(new))

        assert refused(old)


def test_the_document_tells_of_certificates(secured, tls):
    """The OpenAPI document names mutual TLS beside the bearer token, each enough by itself, on every route that needs either."""
    document = client(secured, issued(tls)).get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    needs = [
        operation.get("security")
        for path in document["paths"].values()
        for operation in path.values()
        if "responses" in operation
    ]

    assert (schemes["bearer"]["type"], schemes["certificate"]["type"]) == ("http", "mutualTLS")
    assert [need for need in needs if need and ({"bearer": []} not in need or {"certificate": []} not in need)] == []
    assert sum(need is not None for need in needs) == sum(need is not None for need in NEEDS.values())
