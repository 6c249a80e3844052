"""Faults of the provider as a user of exec sees them: a typed line, no value, no child, and one row that says why."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import history
from tests.support.fault_proxy import Fault, Seen, always, times
from tests.support.own_agent import provider_end
from tests.support.stack import Stack, is_login, is_read, stack
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def _reads(made: Stack, work: Any) -> int:
    before = made.reads
    work()
    return made.reads - before


def test_f1_an_address_that_refuses(stacked: Stack) -> None:
    """A provider that resets every connection is told as unreachable after a few attempts, and works again when it is back."""
    with stacked.to_openbao.failing(always(Fault("reset"))):
        before = len(stacked.to_openbao.seen)
        provider_end(stacked, 75, "provider_unreachable", "cannot reach")
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
        provider_end(stacked, 75, "provider_unreachable", "did not answer in time")
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
        provider_end(stacked, 75, "provider_unreachable", "did not answer in time")
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
        reads = _reads(stacked, lambda: provider_end(stacked, 75, reason))
        assert reads == (1 if reason == "sealed" else ATTEMPTS)
    stacked.works()


@pytest.mark.parametrize("code", [472, 473])
def test_f4_a_standby_that_does_not_serve(stacked: Stack, code: int) -> None:
    """The server's own status codes for a standby are known."""
    raw = b"HTTP/1.1 %d Standby\r\nContent-Length: 0\r\n\r\n" % code
    with stacked.to_openbao.failing(always(Fault("answer", raw=raw), is_read)):
        provider_end(stacked, 75, "standby")


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
        assert _reads(stacked, lambda: provider_end(stacked, 75, "rate_limited")) == 1


def test_f7_a_policy_that_denies(stacked: Stack) -> None:
    """A path that our token may not read is a denial: exit 77, a DENIED row, one read and no new login."""
    stacked.agent.scope("denied", {"CANARY": "vault://hidden/x#key"})
    wait_until(lambda: "denied" in [scope["name"] for scope in stacked.agent.status()["scopes"]])
    logins = stacked.to_openbao.count(is_login)
    end = provider_end(stacked, 77, "provider_policy", "grant", scope="denied")
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
        assert _reads(stacked, lambda: provider_end(stacked, 77, "token_expired")) == 2
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
    provider_end(stacked, 66, reason, scope=name)


def test_f9_a_mount_that_is_not_there(stacked: Stack) -> None:
    """OpenBao tells a missing mount only to who may see it; to us it is a denial that names both ways to mend it."""
    _scope(stacked, "no-mount", "vault://no-such-mount/x#key")
    provider_end(stacked, 77, "provider_policy", "check the mount's name, and grant read", scope="no-mount")
