"""Certificates, end to end with a real PKI engine: one for each release, key and chain together, replaced, revoked."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tests.support.agent import POLICY
from tests.support.leased import LEASES, Leased, leased
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.openbao import OpenBao

PARTS = ("certificate", "private_key", "ca_chain", "full_chain", "serial_number")
NAMES = {"common_name": "web.lan", "dns": ["www.web.lan"], "uris": ["spiffe://prism/web"], "ips": ["192.0.2.7"]}


@pytest.fixture(scope="module")
def made() -> Iterator[Leased]:
    """A stack with an intermediate authority, whose roles revoke with the lease or do not."""
    with leased() as running:
        openbao = running.openbao
        authority(openbao)
        openbao.policy("prism-vault", POLICY + LEASES + 'path "pki/issue/*" { capabilities = ["update"] }\n')
        yield running


def authority(openbao: OpenBao) -> None:
    """Make a root and an authority below it, and two roles."""
    for mount in ("root", "pki"):
        openbao.must("POST", f"sys/mounts/{mount}", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
    openbao.must("POST", "root/root/generate/internal", {"common_name": "root", "ttl": "8760h", "key_type": "ec"})
    request = openbao.must("POST", "pki/intermediate/generate/internal", {"common_name": "ours", "key_type": "ec"})["data"]["csr"]
    signed = openbao.must("POST", "root/root/sign-intermediate", {"csr": request, "format": "pem_bundle", "ttl": "8000h"})
    openbao.must("POST", "pki/intermediate/set-signed", {"certificate": signed["data"]["certificate"]})
    role = {"allow_any_name": True, "allowed_uri_sans": "*", "key_type": "ec", "max_ttl": "720h"}
    openbao.must("POST", "pki/roles/leased", {**role, "generate_lease": True})
    openbao.must("POST", "pki/roles/plain", {**role, "generate_lease": False})


def scope(made: Leased, name: str, role: str, ttl: str = "", **more: Any) -> str:
    """Make a scope with a certificate of a role, in a file."""
    certificate = {**NAMES, **({"ttl": ttl} if ttl else {})}
    env = {part.upper(): f"vault://pki/issue/{role}#{part}" for part in PARTS}
    agent = made.filed.stack.agent
    files = [{"path": "tls.json", "format": "json"}]
    agent.scope(name, env, files=files, certificates={f"pki/issue/{role}": certificate}, **more)
    made.filed.reload()
    wait_until(lambda: name in [each["name"] for each in agent.status()["scopes"]])
    return name


def rendered(made: Leased, name: str) -> dict[str, str]:
    """Return what stands in the file of a scope."""
    return dict(json.loads((made.filed.top / name / "tls.json").read_text()))


def public(of: Any) -> bytes:
    """Return a public key so that it can be compared."""
    return bytes(of.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def revoked(made: Leased, serial: str) -> bool:
    """Tell whether the authority has revoked a certificate."""
    return bool(made.openbao.must("GET", f"pki/cert/{serial}")["data"]["revocation_time"])


def test_key_certificate_and_chain_are_of_one_issue(made):
    """The key is the certificate's, the chain leads to the root, the names are the scope's, and it lives a week."""
    name = scope(made, "whole", "plain")
    made.filed.render(name)
    found = rendered(made, name)
    certificate = x509.load_pem_x509_certificate(found["CERTIFICATE"].encode())
    key = load_pem_private_key(found["PRIVATE_KEY"].encode(), None)
    chain = x509.load_pem_x509_certificates(found["FULL_CHAIN"].encode())

    assert public(key.public_key()) == public(certificate.public_key())
    assert chain[0] == certificate and len(chain) == 3
    for below, above in itertools.pairwise(chain):
        below.verify_directly_issued_by(above)
    assert found["CA_CHAIN"] == found["FULL_CHAIN"].removeprefix(found["CERTIFICATE"] + "\n")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(names.get_values_for_type(x509.DNSName)) == ["web.lan", "www.web.lan"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://prism/web"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    lives = (certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds()
    assert 168 * 3600 <= lives <= 168 * 3600 + 60
    (lease,) = made.filed.told(name)["leases"]
    assert lease["path"] == "pki/issue/plain" and 0 < lease["expires_in"] <= 3600  # that of its child token, which is renewed


def test_a_new_one_is_there_before_two_thirds_of_its_life(made):
    """Certificate and key are replaced together before two thirds of their life have passed, and not before a half."""
    name = scope(made, "anew", "plain", ttl="12s", grace="1s")
    made.filed.render(name)
    first = rendered(made, name)
    wait_until(lambda: rendered(made, name) != first)
    second = rendered(made, name)
    assert made.filed.told(name)["generation"] == 2
    was, is_now = (x509.load_pem_x509_certificate(each["CERTIFICATE"].encode()) for each in (first, second))
    assert public(load_pem_private_key(second["PRIVATE_KEY"].encode(), None).public_key()) == public(is_now.public_key())
    at = (is_now.not_valid_before_utc - was.not_valid_before_utc).total_seconds()
    assert 6 <= at <= 10  # whole seconds, and a render that takes its time
    made.filed.command("clear", name)


def test_where_the_role_makes_leases_it_is_revoked_at_the_end(made):
    """With ``generate_lease`` the authority revokes the certificate when its run ends; without, nothing can be revoked by it."""
    name = scope(made, "revoked", "leased")
    with made.running(name, "/bin/sh", "-c", 'printf %s "$SERIAL_NUMBER"; exec >&-; exec sleep 600') as child:
        assert child.stdout is not None
        serial = child.stdout.read()
        assert not revoked(made, serial)
    wait_until(lambda: revoked(made, serial), 60)


def test_a_run_ends_with_its_certificate(made):
    """A run whose certificate ends is ended shortly before."""
    name = scope(made, "short", "plain", ttl="4s", grace="1s")
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        child.wait(60)
    assert made.filed.ended(audit_id) == "lease_expired"


def test_what_the_role_does_not_allow_is_told(made):
    """A name that the role refuses ends the render with the path and no certificate."""
    made.openbao.must("POST", "pki/roles/narrow", {"allowed_domains": ["other.lan"], "key_type": "ec"})
    name = scope(made, "narrow", "narrow")
    line = made.filed.refused(78, "render", name)
    assert "the engine refuses vault://pki/issue/narrow" in line
