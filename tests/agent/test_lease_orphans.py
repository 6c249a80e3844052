"""Leases that outlive the login that they were made by: child tokens of a token role whose tokens are orphans."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.agent import POLICY
from tests.support.leased import LEASES, Leased, leased
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of a login's token: renewed once, and then replaced.
LIFE = {"token_ttl": "6s", "token_max_ttl": "9s"}
# What docs/leases.md says: of a policy of its own, which lets it read and nothing else.
ROLE = {"orphan": True, "allowed_policies": ["leased"], "renewable": True, "token_type": "service"}
CREATE = LEASES.replace('path "auth/token/create"', 'path "auth/token/create/children"')


@pytest.fixture(scope="module")
def made() -> Iterator[Leased]:
    """A stack whose agent has to log in anew every few seconds, and makes its child tokens by a token role."""
    with leased(vault='token_role = "children"') as running:
        openbao = running.openbao
        openbao.policy("prism-vault", POLICY + CREATE)
        openbao.policy(
            "leased", 'path "database/creds/*" { capabilities = ["read"] }\npath "secret/*" { capabilities = ["read"] }'
        )
        openbao.must("POST", "auth/token/roles/children", ROLE)
        openbao.must("POST", "auth/approle/role/server1", LIFE)
        openbao.must("POST", "auth/token/revoke-accessor", {"accessor": logins(running)[0]})
        yield running


def tokens(made: Leased, path: str) -> list[dict[str, Any]]:
    """Return the tokens that live and were made by a path, oldest first."""
    everyone = made.openbao.must("LIST", "auth/token/accessors")["data"]["keys"]
    found = [made.openbao.request("POST", "auth/token/lookup-accessor", {"accessor": each}) for each in everyone]
    ours = [answer["data"] for status, answer in found if status == 200 and answer["data"]["path"] == path]
    return sorted(ours, key=lambda each: each["issue_time"])


def logins(made: Leased) -> list[str]:
    """Return the accessors of the logins that live."""
    return [each["accessor"] for each in tokens(made, "auth/approle/login")]


def test_a_run_and_a_file_outlive_the_logins(made):
    """Two logins later the run and the generation are the same, with the user that they had; at their end no lease is left."""
    name = made.scope("outlives", grace="1s", role=("5s", "1h"))
    with made.running(name) as child:
        run = made.told(child.pid)
        made.filed.render(name)
        rendered, users = made.filed.told(name)["id"], made.users(name)
        user = json.loads((made.filed.top / name / "db.json").read_text())
        seen = set(logins(made))
        wait_until(lambda: _seen(seen, logins(made)) >= 3, 90)
        assert child.poll() is None and made.told(child.pid)["id"] == run["id"]
        assert (made.filed.told(name)["id"], made.users(name)) == (rendered, users)
        assert made.logs_in(user["DB_USER"], user["DB_PASSWORD"])
        assert made.told(child.pid)["leases"][0]["renewed"] >= 1
        (token,) = [each for each in tokens(made, "auth/token/create/children") if each["meta"]["audit_id"] == run["id"]]
        assert (token["orphan"], token["policies"]) == (True, ["leased"])
    made.filed.command("clear", name)
    made.becomes(name, 0)
    wait_until(lambda: tokens(made, "auth/token/create/children") == [], 30)
    wait_until(lambda: len(logins(made)) == 1, 30)


def _seen(seen: set[str], more: list[str]) -> int:
    """Return how many there have been so far."""
    seen.update(more)
    return len(seen)


def test_the_next_agent_goes_on_with_them(made):
    """An agent that stops gives its own token back and no lease; the next one renews what it finds, and renders nothing anew."""
    name = made.scope("goeson", grace="1s", role=("20s", "1h"))
    agent = made.filed.stack.agent
    with made.running(name) as child:
        made.filed.render(name)
        rendered, users = made.filed.told(name)["id"], made.users(name)
        agent.stop()
        assert logins(made) == []
        agent.start()
        wait_until(lambda: made.told(child.pid)["leases"][0]["renewed"] >= 1, 60)
        assert (made.filed.told(name)["id"], made.users(name), child.poll()) == (rendered, users, None)
    made.becomes(name, 1)
    made.filed.command("clear", name)
    made.becomes(name, 0)


def test_all_of_a_role_are_ended_by_one_word_of_an_operator(made):
    """What was made by the role is revoked by its prefix, which ends runs and clears files within a poll, as the leases end."""
    name = made.scope("prefix", grace="1s")
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        made.filed.render(name)
        made.openbao.must("PUT", "sys/leases/revoke-prefix/auth/token/create/children")
        child.wait(60)
        assert made.filed.ended(audit_id) == "lease_revoked"
        wait_until(lambda: not (made.filed.top / name).exists(), 30)
    made.becomes(name, 0)


def test_a_role_that_is_not_there_is_told(made):
    """Without the token role nothing is read, and the error names it."""
    name = made.scope("norole")
    made.openbao.must("DELETE", "auth/token/roles/children")
    try:
        assert "check the token role children" in made.filed.refused(78, "render", name)
    finally:
        made.openbao.must("POST", "auth/token/roles/children", ROLE)
    assert made.leases(name) == []
