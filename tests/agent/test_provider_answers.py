"""Answers of a provider that are none, and providers that are not to be trusted, as a user of exec sees them."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.certificates import Tls
from tests.support.fake_server import FakeServer
from tests.support.fake_server import always as answering
from tests.support.fault_proxy import Fault, always, response
from tests.support.own_agent import provider_end
from tests.support.stack import Stack, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT = 'timeout = "2s"'


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(vault=TIMEOUT, reservation_ttl="60s") as made:
        yield made


SHAPES = {
    "not-json": response(200, b"hello"),
    "empty": response(200, b""),
    "null": response(200, b"null"),
    "list": response(200, b"[]"),
    "no-metadata": response(200, b'{"data": {"data": {"canary": "x"}}}'),
    "data-is-a-list": response(200, b'{"data": {"data": [], "metadata": {"version": 1}}}'),
    "version-is-a-word": response(200, b'{"data": {"data": {"canary": "x"}, "metadata": {"version": "x"}}}'),
    "duplicate-keys": response(200, b'{"data": {"data": {"canary": "x", "canary": "y"}, "metadata": {"version": 1}}}'),
    "cut-json": response(200, b'{"data": {"data": {"canary": "x"'),
    "cut-body": b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n{"data"',
    "no-http": b"SSH-2.0-OpenSSH_9.9\r\n\r\n\r\n",
    "compressed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
    "teapot": b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n",
    "deep": response(200, b'{"a":' * 100_000),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_f10_an_answer_that_is_none(stacked: Stack, shape: str) -> None:
    """An answer of another shape than OpenBao's is a protocol error: exit 76, and nothing of it is taken for a value."""
    with stacked.to_openbao.failing(always(Fault("answer", raw=SHAPES[shape]), is_read)):
        end = provider_end(stacked, 76, "malformed_answer" if shape != "teapot" else "protocol")
    assert end["kind"] == "failure"


def test_f10_a_flood_of_an_answer(stacked: Stack) -> None:
    """A body of 64 MiB is refused by its announced length, and one without length at a limit: nobody keeps it in memory."""
    assert stacked.agent.process is not None
    front = psutil.Process(stacked.agent.process.pid)

    def resident() -> int:
        return sum(each.memory_info().rss for each in (front, *front.children(recursive=True)))

    stacked.works()
    before = resident()
    flood = b"x" * (64 << 20)
    for head in (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(flood), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"):
        with stacked.to_openbao.failing(always(Fault("answer", raw=head + flood), is_read)):
            provider_end(stacked, 76, "malformed_answer", "larger than")
    assert resident() - before < 16 << 20


@pytest.mark.parametrize("code", [307, 308])
def test_f12_a_redirect_to_another_host(stacked: Stack, code: int) -> None:
    """A redirect to another server is not followed: exit 75, and the other server never hears of us."""
    with FakeServer(answering(response(200, b"{}"))) as other:
        raw = b"HTTP/1.1 %d R\r\nLocation: %s/v1/secret/data/web\r\nContent-Length: 0\r\n\r\n" % (code, other.address.encode())
        with stacked.to_openbao.failing(always(Fault("answer", raw=raw), is_read)):
            provider_end(stacked, 75, "redirect", "redirects to another server")
        assert other.connections == 0


@pytest.mark.parametrize("wrong", ["authority", "name", "reset"])
def test_f11_a_provider_that_cannot_be_trusted_gets_no_credential(stacked: Stack, tmp_path: Path, wrong: str) -> None:
    """With another authority, another name or a broken handshake the agent stays logged out, and has sent no credential."""
    tls = Tls(tmp_path)
    cert, key = tls.issue("other", "vault.example") if wrong == "name" else (tls.cert_file, tls.key_file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    trusted = f'ca_file = "{tls.ca_file}"' if wrong == "name" else ""
    served = None if wrong == "reset" else context
    with FakeServer(answering(b""), context=served) as server:
        address = server.address.replace("http:", "https:")
        with stacked.second(vault_address=address, vault=f"{TIMEOUT}\n{trusted}") as agent:
            wait_until(lambda: agent.status()["vault"]["last_error"])
            done = agent.exec("--scope", "web", "--timeout", "2s", "--", "/bin/echo", "ran")
            assert (done.returncode, done.stdout) == (75, "")
            assert agent.status()["ready"] is False
        secret_id = (stacked.openbao.directory / f"{agent.directory.name}.secret-id").read_text()
        assert secret_id.encode() not in server.received
        assert json.dumps(secret_id)[1:-1].encode() not in server.received
    stacked.settle()
