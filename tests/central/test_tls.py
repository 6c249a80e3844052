"""Central's certificate: served as configured, renewed while it serves, and kept where the new one is no good."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import ssl
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.support.central import CentralProcess
from tests.support.certificates import Tls
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDED = datetime(2020, 1, 1, tzinfo=UTC)


def connected(central: CentralProcess) -> socket.socket:
    """Return a bare connection to central."""
    host, _, port = central.url.partition("://")[2].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=25)


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> Tls:
    """An authority and the pair that central starts with; a test leaves a good one behind."""
    return Tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory, tls) -> Iterator[CentralProcess]:
    """Return a central that serves TLS."""
    pair = {"tls_cert": str(tls.cert_file), "tls_key": str(tls.key_file)}
    with CentralProcess(tmp_path_factory.mktemp("central"), more=pair) as running:
        yield running


def context(tls: Tls) -> ssl.SSLContext:
    """Return a client's context that trusts only the authority of the test."""
    return ssl.create_default_context(cafile=tls.ca_file)


def served(central: CentralProcess, tls: Tls, name: str = "127.0.0.1") -> int:
    """Return the serial number of the certificate that a new connection gets. No name is sent for an address (RFC 6066)."""
    with connected(central) as bare, context(tls).wrap_socket(bare, server_hostname=name) as client:
        return int(str(client.getpeercert()["serialNumber"]), 16)  # type: ignore[index]


def replace(tls: Tls, cert: bytes | None = None, key: bytes | None = None) -> None:
    """Put other files in place of those that are served, as a renewal does: key first, each by a rename."""
    for path, content in ((tls.key_file, key), (tls.cert_file, cert)):
        if content is not None:
            new = path.with_suffix(".new")
            new.touch(0o600)
            new.write_bytes(content)
            new.rename(path)


def issued(tls: Tls, **options: Any) -> tuple[bytes, bytes]:
    """Return another pair of the same authority."""
    pair = tls.ca.issue_cert("127.0.0.1", "localhost", **options)
    return b"".join(blob.bytes() for blob in pair.cert_chain_pems), pair.private_key_pem.bytes()


def refusals(central: CentralProcess) -> list[str]:
    """Return why certificates were refused so far."""
    lines = (json.loads(line) for line in central.log)
    return [line["cause"] for line in lines if line["event"] == "certificate_refused"]


def test_tls_is_served_where_it_is_configured(secured, tls):
    """With a certificate central speaks https with TLS 1.2 or later only, and not http."""
    with httpx2.Client(verify=context(tls), trust_env=False) as client:
        assert secured.url.startswith("https://")
        assert client.get(f"{secured.url}/healthz").status_code == 200
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with connected(secured) as bare, pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(bare)
    with connected(secured) as bare:
        bare.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not bare.recv(4096).startswith(b"HTTP/1.1 2")


def test_a_renewed_certificate_is_served_to_new_connections(secured, tls):
    """A pair that is renewed on disk is given to the next connection, by name and by address; open ones go on undisturbed."""
    before = served(secured, tls)
    with httpx2.Client(base_url=secured.url, verify=context(tls), trust_env=False) as kept:
        assert kept.get("/healthz").status_code == 200
        replace(tls, *issued(tls))
        wait_until(lambda: served(secured, tls) != before)
        after = served(secured, tls, "localhost")

        assert after == served(secured, tls) != before
        assert kept.get("/healthz").status_code == 200


def test_sighup_renews_what_no_watch_sees(tmp_path):
    """A certificate behind a link to another directory, which no watch of the old one sees, is taken at SIGHUP."""
    tls = Tls(tmp_path / "tls")
    current = tmp_path / "current"
    current.symlink_to(tls.directory)
    paths = {"tls_cert": str(current / tls.cert_file.name), "tls_key": str(current / tls.key_file.name)}
    with CentralProcess(tmp_path, more=paths) as central:
        before = served(central, tls)
        other = Tls(tmp_path / "other", tls.ca)
        current.unlink()
        current.symlink_to(other.directory)
        assert central.process is not None
        os.kill(central.process.pid, signal.SIGHUP)

        wait_until(lambda: served(central, tls) != before)


def test_sighup_without_tls_changes_nothing(central):
    """A central without TLS has nothing to renew, and does not end at SIGHUP."""
    os.kill(central.process.pid, signal.SIGHUP)
    with central.client() as client:
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("wrong", ["not a certificate", "another key", "ended", "readable by others", "gone"])
def test_a_bad_certificate_is_refused_and_the_old_one_kept(secured, tls, wrong):
    """What cannot be served is refused with one line that says why; the old pair is served on, and a good one is taken later."""
    before = served(secured, tls)
    cert, key = issued(tls)
    told = {
        "not a certificate": "is not a certificate in PEM",
        "another key": "cannot be used together",
        "ended": "has ended at",
        "readable by others": "mode 0644",
        "gone": "cannot be read",
    }[wrong]
    if wrong == "not a certificate":
        replace(tls, cert=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    elif wrong == "another key":
        replace(tls, key=key)
    elif wrong == "ended":
        replace(tls, *issued(tls, not_after=ENDED))
    elif wrong == "readable by others":
        tls.key_file.chmod(0o644)
    else:
        tls.key_file.unlink()

    wait_until(lambda: any(told in cause for cause in refusals(secured)))
    assert served(secured, tls) == before
    assert not [line for line in secured.log if "Traceback" in line or "PRIVATE" in line]
    replace(tls, cert, key)
    wait_until(lambda: served(secured, tls) != before)


@pytest.mark.parametrize(("wrong", "told"), [("mode", "mode 0644"), ("ended", "has ended"), ("gone", "cannot be read")])
def test_central_does_not_start_with_a_bad_certificate(tmp_path: Path, wrong, told):
    """A certificate that cannot be served is one clear line at the start."""
    tls = Tls(tmp_path / "tls")
    if wrong == "mode":
        tls.key_file.chmod(0o644)
    elif wrong == "ended":
        replace(tls, *issued(tls, not_after=ENDED))
    else:
        tls.cert_file.unlink()

    with pytest.raises(AssertionError, match=told) as raised:
        CentralProcess(tmp_path, more={"tls_cert": str(tls.cert_file), "tls_key": str(tls.key_file)}).start()

    assert "Traceback" not in str(raised.value)


def test_handshakes_that_do_not_end_are_cut_off(secured, tls):
    """A client that says nothing, one that stops in its hello and one that dribbles are cut off; others are served meanwhile."""
    hello = client_hello(tls)
    starts = {"silent": b"", "half": hello[: len(hello) // 2], "dribbling": b""}
    with ExitStack() as open_:
        clients = {name: open_.enter_context(connected(secured)) for name in starts}
        crowd = [open_.enter_context(connected(secured)) for _ in range(100)]
        for name, start in starts.items():
            clients[name].sendall(start)
        assert served(secured, tls)
        sent = dribble(clients["dribbling"], hello)
        assert served(secured, tls)
        ends = [at_end(client) for client in (clients["silent"], clients["half"], *crowd)]

    assert 1 < sent < len(hello)
    assert set(ends) == {b""}


def client_hello(tls: Tls) -> bytes:
    """Return the first message of a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context(tls).wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def dribble(client: socket.socket, content: bytes) -> int:
    """Send a byte whenever the other side has said nothing for half a second; return how many it took until it closed."""
    for sent, byte in enumerate(content):
        if select.select([client], [], [], 0.5)[0]:
            return sent
        client.sendall(bytes([byte]))
    return len(content)


def at_end(client: socket.socket) -> bytes:
    """Return what comes before the other side closes."""
    with contextlib.suppress(ConnectionError):
        return client.recv(64)
    return b""


def test_a_client_that_is_gone_without_a_word_does_not_hold_up_the_end(tmp_path, tls):
    """At SIGTERM a TLS connection that its client does not close is given up in time; nothing is cut off, the status is 0."""
    pair = {"tls_cert": str(tls.cert_file), "tls_key": str(tls.key_file)}
    with CentralProcess(tmp_path, more=pair) as central:
        request = f"GET /v1/signals HTTP/1.1\r\nHost: central\r\nAuthorization: Bearer {central.operator_token}\r\n\r\n"
        with connected(central) as bare, context(tls).wrap_socket(bare, server_hostname="127.0.0.1") as client:
            client.sendall(request.encode())
            assert client.recv(64).startswith(b"HTTP/1.1 200")
            status = central.stop()

    assert status == 0
    assert [line for line in central.log if '"severity": "ERROR"' in line] == []
