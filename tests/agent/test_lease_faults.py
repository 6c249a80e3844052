"""Leased secrets while something fails: nothing is released, and what was made at the provider is taken back (F8, F13)."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.agent.asking import children, last_audit_id, pid_of
from tests.support.agent import POLICY
from tests.support.fault_proxy import Fault, always, times, with_kind
from tests.support.leased import LEASES, Leased, leased
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fault_proxy import Seen


@pytest.fixture(scope="module")
def made() -> Iterator[Leased]:
    """A stack of this file's own; each test has a role and a scope of its own in it."""
    with leased() as running:
        yield running


def path_is(path: str) -> Callable[[Seen], bool]:
    """Select the requests to a path, or below it."""
    return lambda seen: seen.path.startswith(f"/v1/{path}")


def fails(made: Leased, name: str, status: int, reason: str, kind: str = "failure") -> str:
    """Fail unless an exec ends with ``status`` and runs nothing, on the record; return the line that it says."""
    done = made.filed.stack.agent.exec("--timeout", "20s", "--scope", name, "--", "/bin/echo", "the command ran")
    assert (done.returncode, done.stdout) == (status, ""), (done, made.filed.stack.agent.log[-3000:])
    audit_id = last_audit_id(done.stderr)
    wait_until(lambda: len(made.filed.rows(audit_id)) == 2, 30)
    assert [(row["kind"], row.get("reason")) for row in made.filed.rows(audit_id)] == [("reserved", None), (kind, reason)]
    return str(done.stderr)


LOST = {
    "reset": Fault("reset", forwarded=True),
    "500": Fault("answer", forwarded=True, change=lambda _: b"{}", status=500),
    "not JSON": Fault("answer", forwarded=True, change=lambda body: body[: len(body) // 2]),
    "no data": Fault("answer", forwarded=True, change=lambda body: json.dumps({**json.loads(body), "data": None}).encode()),
    "ended": Fault("answer", forwarded=True, change=lambda body: json.dumps({**json.loads(body), "lease_duration": 0}).encode()),
}


@pytest.mark.parametrize("way", LOST)
def test_an_answer_that_is_lost_after_the_lease_was_made_leaves_no_lease(made, way):
    """The user was made and nobody was told: its child token is revoked, and with it the user; nothing was asked for twice."""
    name = made.scope(f"lost{list(LOST).index(way)}")
    proxy, asked = made.filed.stack.to_openbao, path_is(f"database/creds/{name}")
    users = len(made.users(name))
    with proxy.failing(always(LOST[way], asked)):
        status = 76 if way in ("not JSON", "no data") else 75
        reasons = {"reset": "provider_unreachable", "500": "provider_error", "ended": "lease_expired"}
        fails(made, name, status, reasons.get(way, "malformed_answer"))
    assert proxy.count(asked) == 1
    made.becomes(name, users)


@pytest.mark.parametrize("kind", ["reserved", "success"])
def test_g7_without_the_log_no_lease_is_made_or_none_stays(made, kind):
    """Without its first row nothing is asked for; without its second what was made is given back, and nothing is released."""
    name = made.scope(f"nolog{kind[0]}")
    proxy, asked = made.filed.stack.to_openbao, path_is(f"database/creds/{name}")
    with made.filed.stack.to_central.failing(always(Fault("reset"), lambda seen: kind in seen.kinds)):
        done = made.filed.stack.agent.exec("--timeout", "20s", "--scope", name, "--", "/bin/echo", "ran")
        assert (done.returncode, done.stdout) == (75, "")
        assert proxy.count(asked) == (0 if kind == "reserved" else 1)
        made.becomes(name, 0)  # though central is still away


@pytest.mark.parametrize("point", ["made", "recorded"])
def test_a_worker_that_is_killed_leaves_no_lease(made, point):
    """Its worker is killed when the user was made, or while its success is recorded: nothing runs, and the user is given back."""
    name = made.scope(f"worker{point}")
    pid = pid_of(made.filed.stack.agent)

    def kill(body: bytes) -> bytes:
        for each, line in children(pid).items():
            if line == "prism-vault agent: worker":
                os.kill(each, signal.SIGKILL)
        return body

    fault = Fault("answer", forwarded=True, change=kill)
    proxy, condition = {
        "made": (made.filed.stack.to_openbao, path_is(f"database/creds/{name}")),
        "recorded": (made.filed.stack.to_central, with_kind("success")),
    }[point]
    with proxy.failing(times(1, fault, condition)):
        done = made.filed.stack.agent.exec("--timeout", "20s", "--scope", name, "--", "/bin/echo", "ran")
    assert (done.returncode, done.stdout) == (75, ""), done
    made.becomes(name, 0)


def test_postgresql_is_down_while_a_user_is_asked_for(made):
    """The provider's failure is told as such, nothing is released, and no lease stays."""
    name = made.scope("pgdown")
    made.postgres.stop()
    try:
        fails(made, name, 75, "provider_error")
        assert made.leases(name) == []
    finally:
        made.postgres.start()
    with made.running(name):
        assert made.count(name) == (1, 1)
    made.becomes(name, 0)


def test_postgresql_is_down_while_a_user_is_given_back(made):
    """What the provider cannot end yet is told by status and on the log, holds up no clear, and is ended when it can be."""
    name = made.scope("pgback")
    made.filed.render(name)
    made.postgres.stop()
    try:
        assert made.filed.command("clear", name).returncode == 0
        assert not (made.filed.top / name).exists()
        wait_until(lambda: "not ended 1 leases yet" in made.filed.stack.agent.status()["leases"]["last_error"], 30)
        assert re.search(r"^leases +0 held, [1-9]\d* being revoked", made.filed.command("status").stdout, re.MULTILINE)
        wait_until(lambda: made.notes("leases_not_revoked"), 30)
    finally:
        made.postgres.start()
    made.becomes(name, 0, 100)
    wait_until(lambda: made.filed.stack.agent.status()["leases"] == {"held": 0, "revoking": 0, "last_error": ""}, 100)


def test_the_provider_is_away_while_a_lease_is_given_back(made):
    """A run that ends while the provider does not answer is told as ended at once; its lease is revoked when that is back."""
    name = made.scope("away")
    proxy = made.filed.stack.to_openbao
    with proxy.failing(always(Fault("reset"))):
        pass
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        proxy.decide = always(Fault("reset"))
    try:
        assert made.filed.ended(audit_id) == "exited"
        assert made.count(name) == (1, 1)
    finally:
        proxy.decide = lambda _: None
    made.becomes(name, 0)


def test_an_answer_to_a_revocation_that_is_lost_is_asked_for_again(made):
    """A child token whose revocation was answered to nobody is revoked again, which is as good."""
    name = made.scope("again")
    with made.filed.stack.to_openbao.failing(times(1, Fault("reset", forwarded=True), path_is("auth/token/revoke-accessor"))):
        assert made.filed.stack.agent.exec("--timeout", "60s", "--scope", name, "--", "/bin/true").returncode == 0
        made.becomes(name, 0)
    wait_until(lambda: made.filed.stack.agent.status()["leases"]["revoking"] == 0, 30)


def test_f8_a_dead_token_is_replaced_and_the_lease_is_of_the_new_one(made):
    """The agent's token is revoked at the provider: one new login, one lease, one pair of rows."""
    name = made.scope("dead")
    accessors = made.openbao.must("LIST", "auth/token/accessors")["data"]["keys"]
    told = [made.openbao.must("POST", "auth/token/lookup-accessor", {"accessor": each})["data"] for each in accessors]
    for each in told:
        if each["path"] == "auth/approle/login":
            made.openbao.must("POST", "auth/token/revoke-accessor", {"accessor": each["accessor"]})
    with made.running(name) as child:
        assert made.count(name) == (1, 1)
        assert [row["kind"] for row in made.filed.rows(made.told(child.pid)["id"])] == ["reserved", "success"]
    made.becomes(name, 0)


def test_f8_a_token_that_dies_between_child_and_lease_leaves_none_behind(made):
    """The login is revoked when a child token was made: a new login makes another, and the run does not end with the first."""
    name = made.scope("dying")
    proxy, looked = made.filed.stack.to_openbao, path_is("auth/token/lookup-accessor")

    def log_out(body: bytes) -> bytes:
        made.openbao.must("PUT", "sys/leases/revoke-prefix/auth/approle/login")
        return body

    with (
        proxy.failing(times(1, Fault("answer", forwarded=True, change=log_out), path_is("auth/token/create"))),
        made.running(name) as child,
    ):
        assert made.count(name) == (1, 1)
        before = proxy.count(looked)
        wait_until(lambda: proxy.count(looked) >= before + 3)
        assert (child.poll(), len(made.told(child.pid)["leases"])) == (None, 1)
        wait_until(lambda: made.filed.stack.agent.status()["leases"]["revoking"] == 0)
    made.becomes(name, 0)


def test_a_role_that_may_make_no_child_token_is_told_which_right_it_lacks(made):
    """Without update on auth/token/create nothing is asked for at the engine, and the error says what to grant."""
    name = made.scope("norights")
    made.openbao.policy("prism-vault", POLICY + LEASES.replace('path "auth/token/create"', 'path "auth/token/nothing"'))
    try:
        line = fails(made, name, 77, "provider_policy", "denied")
        assert "grant update on auth/token/create" in line
        assert made.leases(name) == []
    finally:
        made.openbao.policy("prism-vault", POLICY + LEASES)


def test_a_login_whose_tokens_have_a_number_of_uses_is_told(made):
    """A token that may be used so many times only makes no children: nothing is asked for, and the error says why."""
    name = made.scope("numbered")
    made.openbao.must("POST", "auth/approle/role/server1", {"token_num_uses": 500})
    made.openbao.must("PUT", "sys/leases/revoke-prefix/auth/approle/login")
    try:
        line = fails(made, name, 78, "no_child_token")
        assert "check that the agent's tokens have no number of uses" in line
        assert made.leases(name) == []
    finally:
        made.openbao.must("POST", "auth/approle/role/server1", {"token_num_uses": 0})
        made.openbao.must("PUT", "sys/leases/revoke-prefix/auth/approle/login")


def test_direct_mode_refuses_what_nobody_would_give_back(made):
    """``exec --direct`` reads no leased secret: nobody would watch its process and end its lease."""
    name = made.scope("direct")
    done = made.filed.stack.direct("--", "/bin/echo", "ran", scope=name)
    assert (done.returncode, done.stdout) == (78, "")
    assert "run an agent" in done.stderr
    assert made.leases(name) == []
