"""TLS with the provider: what is trusted, what is not, and that no token goes out before trust (F11)."""

from __future__ import annotations

import datetime as dt
import os
import socket
import ssl
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization as pem

from prism_vault_agent.config.settings import TlsFiles
from prism_vault_agent.errors import ConfigError, ProviderUnavailable
from prism_vault_agent.vault.tls import tls_context
from prism_vault_agent.vault.transport import Transport
from tests.support.certificates import Tls
from tests.support.fake_server import FakeServer, always, answer, reset
from tests.support.openbao import OpenBao
from tests.support.vault import CANARY, settings, soon, transport

GOOD = answer(b'{"data": {}}')


def server_context(cert_file, key_file) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return context


def ask(server: FakeServer, tls: Tls, seconds: float = 5.0):
    """Send the canary token by https to ``server``, whatever it speaks, trusting our authority."""
    address = server.address.replace("http:", "https:")
    client = transport(address, tls=TlsFiles(ca_file=str(tls.ca_file)))
    return client.request("GET", "secret/data/a", token=CANARY, deadline=soon(seconds))


def refused(server: FakeServer, tls: Tls) -> ProviderUnavailable:
    """Return the error of asking a server that must never see the token."""
    with pytest.raises(ProviderUnavailable) as failed:
        ask(server, tls)
    assert CANARY.encode() not in server.received
    assert CANARY not in failed.value.line()
    return failed.value


def test_a_server_of_our_authority_is_trusted_over_one_connection(tls_bao: OpenBao, tls: Tls) -> None:
    """With the authority's file, requests reach the real server by TLS 1.3 and keep their connection."""
    client = transport(tls_bao.address, tls=TlsFiles(ca_file=str(tls.ca_file)))
    client.connect()
    first = client._connection._wire
    for _ in range(3):
        assert client.request("GET", "sys/internal/ui/mounts/secret", token=tls_bao.root_token, deadline=soon()).ok
    assert client._connection._wire is first
    assert first
    assert isinstance(first.socket, ssl.SSLSocket)
    assert first.socket.version() == "TLSv1.3"


def test_one_context_serves_many_transports_and_forked_children(tls_bao: OpenBao, tls: Tls) -> None:
    """A context that the parent built works in a forked child."""
    wanted = settings(tls_bao.address, tls=TlsFiles(ca_file=str(tls.ca_file)))
    context = tls_context(wanted.address, wanted.tls)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if Transport(wanted, context=context).request("GET", "sys/seal-status", deadline=soon()).ok else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_server_of_an_unknown_authority_is_not_trusted(tls_bao: OpenBao, tmp_path) -> None:
    """Another authority's file, or the system's authorities, do not open the door; no retry, and the reason is told."""
    for files in (TlsFiles(ca_file=str(Tls(tmp_path / "other").ca_file)), TlsFiles()):
        with pytest.raises(ProviderUnavailable) as failed:
            transport(tls_bao.address, tls=files).request("GET", "a/b", token=CANARY, deadline=soon())
        assert failed.value.reason == "tls"
        assert "certificate" in failed.value.line()


def test_a_wrong_name_is_not_trusted(tls: Tls) -> None:
    """A certificate of our authority for another host gets no token."""
    with FakeServer(always(GOOD), context=server_context(*tls.issue("elsewhere", "elsewhere.test"))) as server:
        assert refused(server, tls).reason == "tls"
        assert server.connections == 1


def test_an_expired_certificate_is_not_trusted(tls: Tls) -> None:
    """A certificate whose time is over gets no token."""
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    files = tls.issue("expired", "127.0.0.1", not_before=past, not_after=past + dt.timedelta(days=1))
    with FakeServer(always(GOOD), context=server_context(*files)) as server:
        error = refused(server, tls)
    assert error.reason == "tls"
    assert "expired" in error.line()


def test_a_self_signed_certificate_is_not_trusted(tls: Tls, tmp_path) -> None:
    """A certificate that vouches for itself gets no token."""
    other = Tls(tmp_path / "self")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key = tmp_path / "ca.key"
    key.write_bytes(other.ca.private_key_pem.bytes())
    context.load_cert_chain(other.ca_file, key)
    with FakeServer(always(GOOD), context=context) as server:
        assert refused(server, tls).reason == "tls"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_an_old_protocol_is_not_spoken(tls: Tls) -> None:
    """A server that speaks no more than TLS 1.1 gets no token."""
    context = server_context(tls.cert_file, tls.key_file)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with FakeServer(always(GOOD), context=context) as server:
        assert refused(server, tls).reason == "tls"


def test_a_reset_in_the_handshake_is_retried_and_then_told(tls: Tls) -> None:
    """A RST in the middle of the handshake is an unreachable provider, after four attempts that sent no token."""
    with FakeServer(reset) as server:
        assert refused(server, tls).reason == "provider_unreachable"
        assert server.connections == 4


def test_a_handshake_that_never_ends_is_given_up_at_the_deadline(tls: Tls) -> None:
    """Silence after the client's hello ends with the deadline."""

    def silence(connection: socket.socket, _request: bytes) -> bool:
        connection.recv(1)
        return False

    with FakeServer(silence) as server, pytest.raises(ProviderUnavailable):
        ask(server, tls, 0.4)


def test_plain_http_behind_an_https_address_gets_nothing(tls: Tls) -> None:
    """A server that answers a TLS hello in plain text is refused."""
    with FakeServer(always(GOOD)) as server:
        assert refused(server, tls).reason == "tls"


def test_a_client_certificate_is_shown_to_who_asks(tls: Tls) -> None:
    """A server that requires a client certificate sees ours; without one there is no connection."""
    context = server_context(tls.cert_file, tls.key_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=tls.ca_file)
    ours = TlsFiles(str(tls.ca_file), str(tls.client_cert_file), str(tls.client_key_file))
    with FakeServer(always(GOOD), context=context) as server:
        assert transport(server.address, tls=ours).request("GET", "a/b", deadline=soon()).ok
        with pytest.raises(ProviderUnavailable):
            transport(server.address, tls=TlsFiles(ca_file=str(tls.ca_file))).request("GET", "a/b", deadline=soon(3))


@pytest.mark.parametrize("case", ["missing", "not PEM", "no key", "wrong key", "readable key", "encrypted key"])
def test_unusable_certificate_files_are_configuration_errors(case: str, tls: Tls, tmp_path) -> None:
    """Each unusable file is named, with how to mend it, before any connection; nothing asks for a passphrase."""
    junk, copied = tmp_path / "junk.pem", tmp_path / "copied.key"
    junk.write_text("CANARY")
    copied.touch(mode=0o600)
    copied.write_bytes(tls.client_key_file.read_bytes())
    _, other_key = tls.issue("other", "other.test")
    files = {
        "missing": TlsFiles(ca_file=str(tmp_path / "no.pem")),
        "not PEM": TlsFiles(ca_file=str(junk)),
        "no key": TlsFiles(str(tls.ca_file), str(tls.client_cert_file), str(tmp_path / "no.key")),
        "wrong key": TlsFiles(str(tls.ca_file), str(tls.client_cert_file), str(other_key)),
        "readable key": TlsFiles(str(tls.ca_file), str(tls.client_cert_file), str(copied)),
        "encrypted key": TlsFiles(str(tls.ca_file), str(tls.client_cert_file), str(copied)),
    }[case]
    if case == "readable key":
        copied.chmod(0o644)
    if case == "encrypted key":
        key = pem.load_pem_private_key(copied.read_bytes(), None)
        encryption = pem.BestAvailableEncryption(b"passphrase")
        copied.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, encryption))
    with pytest.raises(ConfigError) as failed:
        tls_context("https://vault.lan:8200", files)
    assert any(path in failed.value.line() for path in (str(tmp_path), str(tls.directory)))
    assert "CANARY" not in failed.value.line()
    assert failed.value.exit_status == 78


def test_tls_takes_nothing_from_the_environment(tls: Tls, tmp_path) -> None:
    """SSL_CERT_FILE opens no door and SSLKEYLOGFILE writes no keys."""
    keys = tmp_path / "keys.log"
    code = (
        "import sys, time\n"
        "from tests.support.vault import settings, soon, transport\n"
        "from prism_vault_agent.errors import ProviderUnavailable\n"
        "from prism_vault_agent.config.settings import TlsFiles\n"
        "print(transport(sys.argv[1], tls=TlsFiles(ca_file=sys.argv[2])).request('GET', 'a/b', deadline=soon()).ok)\n"
        "try: transport(sys.argv[1]).request('GET', 'a/b', deadline=soon())\n"
        "except ProviderUnavailable as error: print(error.reason)\n"
    )
    with FakeServer(always(GOOD), context=server_context(tls.cert_file, tls.key_file)) as server:
        ran = subprocess.run(
            [sys.executable, "-c", code, server.address, str(tls.ca_file)],
            env={"SSL_CERT_FILE": str(tls.ca_file), "SSL_CERT_DIR": str(tls.directory), "SSLKEYLOGFILE": str(keys)},
            cwd=os.getcwd(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.stdout.split() == ["True", "tls"], ran.stderr
    assert not keys.exists()
