"""Faults of the provider as a user of exec sees them: a typed line, no value, no child, and one row that says why."""

from __future__ import annotations

import json
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support import history
from tests.support.certificates import Tls
from tests.support.fake_server import FakeServer
from tests.support.fake_server import always as answering
from tests.support.fault_proxy import Fault, Seen, always, response, times
from tests.support.stack import Stack, is_login, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT = 'timeout = "2s"'
ATTEMPTS = 4  # an idempotent request is tried three times more after a passing failure


@pytest.fixture(scope="module")
def stacked() -> Iterator[Stack]:
    with stack(vault=TIMEOUT, reservation_ttl="60s") as made:
        made.openbao.mount_kv("hidden")
        made.openbao.kv_put("hidden/x", {"key": made.canary})
        for path, action in (("deleted", "delete"), ("destroyed", "destroy"), ("two", "delete")):
            made.openbao.kv_put(f"secret/{path}", {"key": "1"})
            made.openbao.must("POST", f"secret/{action}/{path}", {"versions": [1]})
        made.openbao.kv_put("secret/two", {"key": "2"})
        yield made


def _ends(made: Stack, status: int, reason: str, *told: str, scope: str = "web", options: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run an exec that fails, and return the row of its end, which must be the only one and tell ``reason``."""
    before = len(made.settle())
    done = made.agent.exec("--scope", scope, *options, "--", "/bin/sh", "-c", 'echo "ran $CANARY"')
    assert (done.returncode, done.stdout) == (status, ""), (done, made.agent.log[-3000:])
    assert done.stderr.startswith(f"prism-vault: scope {scope}: ")
    assert done.stderr.count("\n") == 1
    assert made.canary not in done.stderr
    for each in told:
        assert each in done.stderr
    made.settle()
    rows = made.rows(before)
    end = rows[-1]
    assert history.kinds(rows) == ["reserved", "denied" if status == 77 else "failure"]
    assert end["reason"] == reason
    assert f"(pva_{end['reservation']})\n" in done.stderr
    return end


def _reads(made: Stack, work: Any) -> int:
    before = made.reads
    work()
    return made.reads - before


def test_f1_an_address_that_refuses(stacked: Stack) -> None:
    """A provider that resets every connection is told as unreachable after a few attempts, and works again when it is back."""
    with stacked.to_openbao.failing(always(Fault("reset"))):
        before = len(stacked.to_openbao.seen)
        _ends(stacked, 75, "provider_unreachable", "cannot reach")
        asked = [seen.path for seen in stacked.to_openbao.seen[before:] if "/sys/health" not in seen.path]
        assert len(asked) <= ATTEMPTS + 1  # the first one may go to a connection that was lost while it was idle
        assert stacked.agent.status()["ready"] is False
    wait_until(lambda: stacked.agent.status()["ready"])
    stacked.works()


def test_f1_one_lost_connection_is_not_noticed(stacked: Stack) -> None:
    """A read whose connection is lost once is asked for again: one reservation, one success."""
    before = len(stacked.settle())
    with stacked.to_openbao.failing(times(1, Fault("reset"), is_read)):
        stacked.works()
    stacked.settle()
    assert history.kinds(stacked.rows(before)) == ["reserved", "success"]


def test_f2_a_provider_that_never_answers(stacked: Stack) -> None:
    """An OpenBao that hangs is given up at its timeout; when it goes on, exec works again."""
    stacked.openbao.pause()
    try:
        _ends(stacked, 75, "provider_unreachable", "did not answer in time")
    finally:
        stacked.openbao.resume()
    stacked.works()


def test_f2_the_timeout_of_exec_bounds_the_whole(stacked: Stack) -> None:
    """``--timeout`` ends a render whose read hangs, before the provider's own timeout does."""
    with stacked.to_openbao.failing(always(Fault("hang"), is_read)):
        done = stacked.fails(75, options=("--timeout", "500ms"))
    assert "in time" in done.stderr or "longer than" in done.stderr
    stacked.works()


def test_f3_a_provider_that_drips(stacked: Stack) -> None:
    """An answer that comes byte by byte is bounded as a whole."""
    with stacked.to_openbao.failing(always(Fault("drip", forwarded=True), is_read)):
        _ends(stacked, 75, "provider_unreachable", "did not answer in time")
    stacked.works()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, b'{"errors":["Vault is sealed"]}', "sealed"),
        (501, b"{}", "sealed"),
        (503, b"{}", "provider_unreachable"),
        (429, b"{}", "rate_limited"),
        (500, b'{"errors":["internal error"]}', "provider_error"),
        (502, b"<html>", "provider_error"),
        (504, b"<html>", "provider_error"),
        (412, b"{}", "provider_unreachable"),
    ],
)
def test_f4_f5_f6_a_provider_that_cannot_now(stacked: Stack, status: int, body: bytes, reason: str) -> None:
    """Sealed, limiting or failing, a provider is asked a bounded number of times, and told by its own reason."""
    with stacked.to_openbao.failing(always(Fault("answer", status=status, body=body), is_read)):
        reads = _reads(stacked, lambda: _ends(stacked, 75, reason))
        assert reads == (1 if reason == "sealed" else ATTEMPTS)
    stacked.works()


@pytest.mark.parametrize("code", [472, 473])
def test_f4_a_standby_that_does_not_serve(stacked: Stack, code: int) -> None:
    """The server's own status codes for a standby are known."""
    raw = b"HTTP/1.1 %d Standby\r\nContent-Length: 0\r\n\r\n" % code
    with stacked.to_openbao.failing(always(Fault("answer", raw=raw), is_read)):
        _ends(stacked, 75, "standby")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_f5_f6_a_passing_condition_passes(stacked: Stack, status: int) -> None:
    """One such answer is not noticed: the read is asked again within the same reservation."""
    before = len(stacked.settle())
    with stacked.to_openbao.failing(times(1, Fault("answer", status=status), is_read)):
        stacked.works()
    stacked.settle()
    assert history.kinds(stacked.rows(before)) == ["reserved", "success"]


def test_f5_a_retry_after_beyond_the_deadline_is_not_waited_for(stacked: Stack) -> None:
    """A server that asks for more patience than the exec has is denied at once."""
    raw = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n"
    with stacked.to_openbao.failing(always(Fault("answer", raw=raw), is_read)):
        assert _reads(stacked, lambda: _ends(stacked, 75, "rate_limited")) == 1


def test_f7_a_policy_that_denies(stacked: Stack) -> None:
    """A path that our token may not read is a denial: exit 77, a DENIED row, one read and no new login."""
    stacked.agent.scope("denied", {"CANARY": "vault://hidden/x#key"})
    wait_until(lambda: "denied" in [scope["name"] for scope in stacked.agent.status()["scopes"]])
    logins = stacked.to_openbao.count(is_login)
    end = _ends(stacked, 77, "provider_policy", "grant", scope="denied")
    assert end["kind"] == "denied"
    asked = [seen.path for seen in stacked.to_openbao.seen if "hidden" in seen.path]
    assert len(asked) == 1
    assert stacked.to_openbao.count(is_login) == logins


def _revoke(made: Stack) -> None:
    """Revoke every token of the agent's login, as an operator would."""
    for accessor in made.openbao.must("LIST", "auth/token/accessors")["data"]["keys"]:
        found = made.openbao.request("POST", "auth/token/lookup-accessor", {"accessor": accessor})[1].get("data") or {}
        if found.get("path") == "auth/approle/login":
            made.openbao.must("POST", "auth/token/revoke-accessor", {"accessor": accessor})


def test_f8_a_token_that_was_revoked(stacked: Stack) -> None:
    """A dead token costs one new login and one more read within the same reservation; the caller notices nothing."""
    stacked.works()  # the mounts are known from now on
    before, logins = len(stacked.settle()), stacked.to_openbao.count(is_login)
    _revoke(stacked)
    assert _reads(stacked, stacked.works) == 2
    stacked.settle()
    assert history.kinds(stacked.rows(before)) == ["reserved", "success"]
    assert stacked.to_openbao.count(is_login) == logins + 1


def test_f8_a_token_that_is_revoked_in_the_middle(stacked: Stack) -> None:
    """The same holds where the token dies between the reservation and the read, for many execs at once."""
    stacked.works()
    before, logins = len(stacked.settle()), stacked.to_openbao.count(is_login)
    go_on = threading.Event()

    def hold(seen: Seen) -> Fault | None:
        return Fault("answer", forwarded=True, until=go_on) if is_read(seen) and not go_on.is_set() else None

    reads = stacked.reads
    with stacked.to_openbao.failing(hold), ThreadPoolExecutor(4) as pool:
        running = [pool.submit(stacked.works) for _ in range(4)]
        try:
            wait_until(lambda: stacked.reads == reads + 4, 30)
            _revoke(stacked)
        finally:
            go_on.set()
        for each in running:
            each.result()
    stacked.settle()
    assert history.kinds(stacked.rows(before)).count("reserved") == 4
    assert stacked.to_openbao.count(is_login) == logins + 1


def test_f8_a_token_that_stays_dead(stacked: Stack) -> None:
    """Where even the new token is refused as dead, the exec fails after one retry; it does not log in for ever."""

    def dead(seen: Seen) -> Fault | None:
        refused = is_read(seen) or seen.path == "/v1/auth/token/lookup-self"
        return Fault("answer", status=403, body=b'{"errors":["permission denied"]}') if refused else None

    stacked.works()
    logins = stacked.to_openbao.count(is_login)
    with stacked.to_openbao.failing(dead):
        assert _reads(stacked, lambda: _ends(stacked, 77, "token_expired")) == 2
    assert stacked.to_openbao.count(is_login) <= logins + 2
    wait_until(lambda: stacked.agent.status()["ready"])
    stacked.works()


def _scope(made: Stack, name: str, reference: str) -> None:
    made.agent.scope(name, {"CANARY": reference})
    wait_until(lambda: name in [scope["name"] for scope in made.agent.status()["scopes"]])


@pytest.mark.parametrize(
    ("name", "reference", "reason"),
    [
        ("no-path", "vault://secret/no-such-path#key", "no_such_path"),
        ("no-key", "vault://secret/web#no-such-key", "no_such_key"),
        ("no-version", "vault://secret/web#canary?version=99", "no_such_version"),
        ("deleted", "vault://secret/deleted#key", "deleted"),
        ("destroyed", "vault://secret/destroyed#key", "destroyed"),
        ("deleted-version", "vault://secret/two#key?version=1", "deleted"),
    ],
)
def test_f9_what_is_not_there(stacked: Stack, name: str, reference: str, reason: str) -> None:
    """Missing, deleted and destroyed are told apart: exit 66, which says not to retry, and a row with the same word."""
    _scope(stacked, name, reference)
    _ends(stacked, 66, reason, scope=name)


def test_f9_a_mount_that_is_not_there(stacked: Stack) -> None:
    """OpenBao tells a missing mount only to who may see it; to us it is a denial that names both ways to mend it."""
    _scope(stacked, "no-mount", "vault://no-such-mount/x#key")
    _ends(stacked, 77, "provider_policy", "check the mount's name, and grant read", scope="no-mount")


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
        end = _ends(stacked, 76, "malformed_answer" if shape != "teapot" else "protocol")
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
            _ends(stacked, 76, "malformed_answer", "larger than")
    assert resident() - before < 16 << 20


@pytest.mark.parametrize("code", [307, 308])
def test_f12_a_redirect_to_another_host(stacked: Stack, code: int) -> None:
    """A redirect to another server is not followed: exit 76, and the other server never hears of us."""
    with FakeServer(answering(response(200, b"{}"))) as other:
        raw = b"HTTP/1.1 %d R\r\nLocation: %s/v1/secret/data/web\r\nContent-Length: 0\r\n\r\n" % (code, other.address.encode())
        with stacked.to_openbao.failing(always(Fault("answer", raw=raw), is_read)):
            _ends(stacked, 76, "redirect", "redirects to another server")
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
