"""What the transport does when the provider does not do its part (F1 to F6, F10, F12, F18 of the fault catalogue)."""

from __future__ import annotations

import socket
import time

import pytest

from prism_vault_agent.errors import ConfigError, ProviderUnavailable
from tests.support.fake_server import FakeServer, always, answer, in_turn
from tests.support.openbao import OpenBao
from tests.support.processes import free_port
from tests.support.vault import CANARY, soon, transport

GOOD = answer(b'{"data": {"k": "v"}}')


def drip(connection: socket.socket, _request: bytes) -> bool:
    for byte in GOOD * 10:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)
    return False


def silence(connection: socket.socket, _request: bytes) -> bool:
    connection.recv(1)
    return False


@pytest.mark.parametrize("behave", [silence, drip], ids=["silence", "drip"])
def test_a_provider_that_does_not_end_its_answer_is_given_up_at_the_deadline(behave) -> None:
    """Silence and one byte at a time both end at the deadline, not at the read timeout after it."""
    started = time.monotonic()
    with FakeServer(behave) as server, pytest.raises(ProviderUnavailable) as failed:
        transport(server.address).request("GET", "secret/data/a", token=CANARY, deadline=soon(0.6))
    assert time.monotonic() - started < 0.6 + 0.5
    assert CANARY not in failed.value.line()
    assert failed.value.exit_status == 75


def test_one_attempt_is_bounded_by_the_configured_timeout() -> None:
    """Where the deadline is far, a single request still ends after ``vault.timeout``."""
    started = time.monotonic()
    with FakeServer(silence) as server, pytest.raises(ProviderUnavailable):
        transport(server.address, timeout=0.3).request("GET", "a/b", deadline=soon(20))
    assert time.monotonic() - started < 0.3 + 0.5


def test_a_refused_connection_is_tried_again_with_pauses_and_then_told() -> None:
    """Nobody listening is retried within the deadline, for writes too since nothing was sent, and then unreachable."""
    port = free_port()
    started = time.monotonic()
    with pytest.raises(ProviderUnavailable) as failed:
        transport(f"http://127.0.0.1:{port}").request("POST", "a/b", body={}, deadline=soon(10))
    assert failed.value.reason == "provider_unreachable"
    assert f"127.0.0.1:{port}" in failed.value.line()
    assert 0.3 < time.monotonic() - started < 3


def test_retries_end_with_the_deadline() -> None:
    """No pause goes beyond the deadline."""
    started = time.monotonic()
    with pytest.raises(ProviderUnavailable):
        transport(f"http://127.0.0.1:{free_port()}").request("GET", "a/b", deadline=soon(0.2))
    assert time.monotonic() - started < 0.5


def test_a_name_that_does_not_resolve_is_unreachable_within_the_deadline() -> None:
    """A host name without address is a typed error in time, however long the resolver takes."""
    started = time.monotonic()
    with pytest.raises(ProviderUnavailable) as failed:
        transport("https://vault.invalid:8200").request("GET", "a/b", deadline=soon(1))
    assert time.monotonic() - started < 1.5
    assert failed.value.reason == "provider_unreachable"


@pytest.mark.parametrize("status", [412, 429, 472, 473, 500, 502, 503, 504])
def test_passing_failures_of_reads_are_tried_four_times_at_most(status: int) -> None:
    """A read is retried three times after a passing failure and then denied as unavailable."""
    with FakeServer(always(answer(b'{"errors": ["CANARY"]}', f"{status} Whatever"))) as server:
        with pytest.raises(ProviderUnavailable) as failed:
            transport(server.address).request("GET", "a/b", token=CANARY, deadline=soon())
        assert len(server.requests) == 4
    assert str(status) in failed.value.line()
    assert "CANARY" not in failed.value.line()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_writes_are_not_repeated(status: int) -> None:
    """A request that may have been carried out is sent once."""
    with FakeServer(always(answer(b"{}", f"{status} Whatever"))) as server:
        with pytest.raises(ProviderUnavailable):
            transport(server.address).request("POST", "a/b", body={}, deadline=soon())
        assert len(server.requests) == 1


def test_a_read_succeeds_as_soon_as_the_provider_does() -> None:
    """Two failures and a reset before the good answer go unnoticed."""
    busy = answer(b"{}", "502 Bad Gateway")
    with FakeServer(in_turn(busy, b"", busy, GOOD)) as server:
        found = transport(server.address).request("GET", "a/b", deadline=soon())
        assert found.data == {"data": {"k": "v"}}
        assert len(server.requests) == 4


def test_a_write_that_was_reset_is_not_repeated() -> None:
    """After a reset nobody knows whether a write was carried out, so it is told and not sent again."""
    with FakeServer(in_turn(b"", GOOD)) as server:
        with pytest.raises(ProviderUnavailable):
            transport(server.address).request("POST", "a/b", body={}, deadline=soon())
        assert len(server.requests) == 1


def test_retry_after_is_honoured() -> None:
    """The server's Retry-After is waited for."""
    busy = answer(b"{}", "429 Too Many Requests", "Retry-After: 1")
    with FakeServer(in_turn(busy, GOOD)) as server:
        started = time.monotonic()
        assert transport(server.address).request("GET", "a/b", deadline=soon()).ok
    assert time.monotonic() - started >= 1


def test_a_retry_after_beyond_the_deadline_ends_at_once() -> None:
    """Waiting that cannot help is not done; the audit word says why."""
    started = time.monotonic()
    with FakeServer(always(answer(b"{}", "429 Too Many Requests", "Retry-After: 3600"))) as server:
        with pytest.raises(ProviderUnavailable) as failed:
            transport(server.address).request("GET", "a/b", deadline=soon())
        assert len(server.requests) == 1
    assert failed.value.reason == "rate_limited"
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(("status", "body"), [(503, b'{"errors":["Vault is sealed"]}'), (501, b"{}")])
def test_a_sealed_provider_is_told_at_once(status: int, body: bytes) -> None:
    """Sealed is its own audit word, and no retry unseals a server."""
    with FakeServer(always(answer(body, f"{status} Whatever"))) as server:
        with pytest.raises(ProviderUnavailable) as failed:
            transport(server.address).request("GET", "a/b", deadline=soon())
        assert len(server.requests) == 1
    assert failed.value.reason == "sealed"


def test_a_connection_is_kept_and_reopened_when_it_was_closed_meanwhile() -> None:
    """Requests share one connection; one that the server has closed is replaced without a failed attempt."""

    def three_then_close(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(GOOD)
        return len(server.requests) % 3 != 0

    with FakeServer(three_then_close) as server:
        client = transport(server.address)
        client.connect()
        for _ in range(9):
            assert client.request("GET", "a/b", deadline=soon()).ok
        assert (server.connections, len(server.requests)) == (3, 9)


def test_a_restart_between_login_and_read_is_survived(tmp_path) -> None:
    """A provider that is gone and back within the deadline costs a retry, not an error (F18)."""
    with FakeServer(in_turn(GOOD, b"", GOOD)) as server:
        client = transport(server.address)
        assert client.request("POST", "auth/approle/login", body={}, deadline=soon()).ok
        assert client.request("GET", "secret/data/a", deadline=soon()).ok
        assert len(server.requests) == 3


def test_plain_http_to_another_host_is_refused_before_anything_is_sent() -> None:
    """Plain http is for loopback: elsewhere it is a configuration error, found without a packet."""
    for address in ("http://192.0.2.1:8200", "http://vault.lan:8200", "http://0.0.0.0:8200"):
        with pytest.raises(ConfigError) as refused:
            transport(address).request("GET", "a/b", token=CANARY, deadline=soon(2))
        assert "https" in refused.value.line()


@pytest.mark.parametrize(
    "address", ["", "vault.lan:8200", "ftp://vault.lan", "https://", "https://user:pw@vault.lan", "https://vault.lan:99999"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """What is not a server's address is a configuration error that says what is expected."""
    with pytest.raises(ConfigError) as refused:
        transport(address)
    assert "https://<host>:<port>" in refused.value.line()
    assert "pw" not in refused.value.line()


@pytest.mark.parametrize("token", [f"{CANARY}\r\nX-Evil: 1", f"{CANARY}\n", f"é{CANARY}"])
def test_a_token_that_no_header_carries_is_refused_and_not_shown(token: str) -> None:
    """A token with a line end cannot add a header, and the error does not show it."""
    with FakeServer(always(GOOD)) as server:
        with pytest.raises(ConfigError) as refused:
            transport(server.address).request("GET", "a/b", token=token, deadline=soon())
        assert server.received == b""
    assert "CANARY" not in refused.value.line()


def test_paths_are_quoted() -> None:
    """A path is sent as it is spelled in the reference, whatever letters it has."""
    with FakeServer(always(GOOD)) as server:
        transport(server.address).request("GET", "secret/data/ü b%2F?x", query={"version": 3}, deadline=soon())
        assert server.received.startswith(b"GET /v1/secret/data/%C3%BC%20b%252F%3Fx?version=3 HTTP/1.1\r\n")


def test_a_paused_provider_is_given_up_in_time(tmp_path) -> None:
    """A real server that is stopped accepts connections and never answers; the deadline holds."""
    with OpenBao(tmp_path / "bao") as server:
        client = transport(server.address)
        assert client.request("GET", "sys/seal-status", deadline=soon()).ok
        server.pause()
        started = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            client.request("GET", "sys/seal-status", deadline=soon(0.5))
        assert time.monotonic() - started < 1.0
        server.resume()
        assert client.request("GET", "sys/seal-status", deadline=soon()).ok
        server.kill()
        with pytest.raises(ProviderUnavailable) as failed:
            client.request("GET", "sys/seal-status", deadline=soon())
        assert failed.value.reason == "provider_unreachable"
