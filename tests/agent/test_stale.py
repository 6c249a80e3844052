"""What was given out while the provider is away: used on, within the bound that its scope has, and never past an end (F15)."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.agent import POLICY
from tests.support.fault_proxy import Fault, always
from tests.support.files import Filed, filed
from tests.support.leased import LEASES
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack of this file's own; each test has a scope of its own in it."""
    with filed(poll="500ms") as running:
        yield running


@contextlib.contextmanager
def away(made: Filed) -> Iterator[None]:
    """Have the provider answer nobody."""
    with made.stack.to_openbao.failing(always(Fault("reset"))):
        yield


@contextlib.contextmanager
def running(made: Filed, name: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Have a command run with a scope; yield it and its release's audit id."""
    child = made.stack.agent.spawn("--timeout", "60s", "--scope", name, "--", "/bin/sleep", "600")
    try:
        (audit_id,) = wait_until(lambda: [run["id"] for run in made.stack.agent.status()["runs"] if run["pid"] == child.pid], 60)
        yield child, audit_id
    finally:
        child.kill()
        child.communicate()


def stale(made: Filed, audit_id: str) -> dict[str, Any] | None:
    """Return what status says of a release, where it is stale."""
    status = made.stack.agent.status()
    return next(
        (each for each in (*status["runs"], *status["files"]) if each["id"] == audit_id and each["stale_for"] is not None), None
    )


def notes(made: Filed, word: str, audit_id: str) -> list[str]:
    """Return what the log notes of a release under a word."""
    rows = [event["fields"] for event in made.stack.central.events()]
    return [row["message"] for row in rows if row["kind"] == "admin" and row["reason"] == word and audit_id in row["message"]]


def test_what_is_out_is_used_up_to_its_bound(made):
    """A file and a run are stale when two polls got no answer, which is recorded and shown; at the bound they are taken back."""
    name = made.scope("bounded", stale_ok="5s", grace="1s")
    made.render(name)
    file_id = made.told(name)["id"]
    with running(made, name) as (child, run_id), away(made):
        began = time.monotonic()
        found = wait_until(lambda: stale(made, file_id), 30)
        assert found is not None and 1 <= found["stale_for"] <= 5 and found["stale_ends_in"] <= 4
        wait_until(lambda: stale(made, run_id), 30)
        wait_until(lambda: notes(made, "stale", file_id) and notes(made, "stale", run_id))
        assert child.poll() is None and made.file(name) == made.whole(name, 1)
        assert "not confirmed for" in made.command("status").stdout
        child.wait(30)
        assert time.monotonic() - began > 4  # the last poll before was half a second ago at most
        wait_until(lambda: made.file(name) is None)
        assert [made.ended(each) for each in (file_id, run_id)] == ["stale", "stale"]


def test_an_answer_in_time_makes_it_fresh_again(made):
    """Where the provider answers before the bound nothing is taken back, and that is recorded too."""
    name = made.scope("returned", stale_ok="1h")
    made.render(name)
    audit_id = made.told(name)["id"]
    with away(made):
        wait_until(lambda: stale(made, audit_id), 30)
    wait_until(lambda: stale(made, audit_id) is None, 30)
    wait_until(lambda: notes(made, "fresh", audit_id), 30)
    assert made.file(name) == made.whole(name, 1)
    assert len(notes(made, "stale", audit_id)) == len(notes(made, "fresh", audit_id)) == 1


def test_one_variable_may_have_a_bound_of_its_own(made):
    """A secret's own bound holds in place of its scope's, be it shorter or longer; without any nothing is ever stale."""
    name = made.scope("onekey", stale_ok="1h", keys={"KEY": {"stale_ok": "2s"}})
    longer = made.scope("longer", stale_ok="1s", keys={"KEY": {"stale_ok": "1h"}})
    free = made.scope("unbounded")
    for each in (name, longer, free):
        made.render(each)
    audit_id = made.told(name)["id"]
    with away(made):
        assert made.ended(audit_id) == "stale"
        for each in (longer, free):
            assert made.file(each) == made.whole(each, 1)
        assert wait_until(lambda: made.told(longer)["stale_ends_in"]) > 3000
        assert made.told(free)["stale_for"] is None


def test_what_is_asked_for_less_often_is_not_stale_for_that(made):
    """A scope with a longer poll is not called stale between two of its own."""
    name = made.scope("seldom", stale_ok="1h", poll="2s")
    made.render(name)
    audit_id, proxy = made.told(name)["id"], made.stack.to_openbao
    wait_until(lambda: len([seen for seen in proxy.seen if seen.path.endswith(f"/metadata/{name}")]) >= 2, 30)
    assert notes(made, "stale", audit_id) == []


def test_a_deleted_secret_is_taken_back_whatever_its_bound(made):
    """Once the provider answers, what was deleted meanwhile is cleared as deleted, though it might have been used for longer."""
    name = made.scope("deleted", stale_ok="1h")
    made.render(name)
    audit_id = made.told(name)["id"]
    with away(made):
        wait_until(lambda: stale(made, audit_id), 30)
        made.stack.openbao.must("DELETE", f"secret/metadata/{name}")
    assert made.ended(audit_id) == "secret_no_such_path"


def test_a_revocation_does_not_wait_for_the_provider(made):
    """What may still be used is cleared at once by a revocation while nobody can ask the provider."""
    name = made.scope("revoked", stale_ok="1h")
    made.render(name)
    audit_id = made.told(name)["id"]
    with away(made):
        wait_until(lambda: stale(made, audit_id), 30)
        assert made.command("revoke", name).returncode == 0
        assert made.file(name) is None
    assert made.ended(audit_id) == "revoked"


def test_no_bound_goes_past_the_end_of_a_lease(made):
    """A certificate of seconds is cleared at its end by its own clock, however long its scope may be stale."""
    openbao = made.stack.openbao
    openbao.must("POST", "sys/mounts/ssh", {"type": "ssh"})
    openbao.must("POST", "ssh/config/ca", {"generate_signing_key": True, "key_type": "ed25519"})
    openbao.must("POST", "ssh/roles/web", {"key_type": "ca", "allow_user_certificates": True, "allowed_users": "*"})
    openbao.policy("prism-vault", POLICY + LEASES + 'path "ssh/sign/*" { capabilities = ["update"] }\n')
    agent, path = made.stack.agent, "ssh/sign/web"
    agent.scope(
        "ending", {"KEY": f"vault://{path}#private_key"}, files=[{"path": "d", "format": "dir"}],
        ssh={path: {"principals": ["deploy"], "ttl": "6s"}}, stale_ok="1h",
    )  # fmt: skip
    made.reload()
    wait_until(lambda: "ending" in [scope["name"] for scope in agent.status()["scopes"]])
    made.render("ending")
    audit_id = made.told("ending")["id"]
    with away(made):
        assert made.ended(audit_id) == "lease_expired"
        assert not (made.top / "ending").exists()


def test_a_restart_of_the_agent_makes_no_bound_longer(made):
    """The time without an answer is counted from the last agent's last answer, once the next one has asked and got none."""
    bound = min(3_600, int(time.clock_gettime(time.CLOCK_BOOTTIME)) // 2)  # no agent has had an answer before the host was up
    name = made.scope("restarted", stale_ok=f"{bound}s")
    made.render(name)
    audit_id, agent = made.told(name)["id"], made.stack.agent
    answered = agent.directory / "state" / "answered"
    wait_until(answered.exists)
    agent.stop()
    kept = json.loads(answered.read_text())
    answered.write_text(json.dumps({**kept, "at": kept["at"] - bound - 1}))
    with away(made):
        agent.start(ready=False)
        assert made.ended(audit_id) == "stale"
    made.render(name)
    audit_id = made.told(name)["id"]
    agent.stop()
    answered.write_text(json.dumps({**kept, "at": kept["at"] - bound - 1}))
    agent.start()
    wait_until(lambda: json.loads(answered.read_text())["at"] > kept["at"])
    assert (made.told(name)["id"], made.file(name)) == (audit_id, made.whole(name, 1))
