"""Leases over the logins of the agent: files get new ones of the next token, and nothing is revoked that somebody holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.leased import Leased, leased
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of a login's token: renewed once, and then replaced.
LIFE = {"token_ttl": "8s", "token_max_ttl": "14s"}


@pytest.fixture(scope="module")
def made() -> Iterator[Leased]:
    """A stack whose agent has to log in anew every few seconds."""
    with leased() as running:
        running.openbao.must("POST", "auth/approle/role/server1", LIFE)
        logged_in_with(running)
        running.openbao.must("POST", "auth/token/revoke-accessor", {"accessor": logins(running)[0]["accessor"]})
        yield running


def logged_in_with(made: Leased) -> None:
    """Wait until the agent has a token."""
    wait_until(lambda: made.filed.stack.agent.status()["vault"]["state"] == "logged_in")


def logins(made: Leased) -> list[dict[str, Any]]:
    """Return the tokens of logins that live, oldest first."""
    everyone = made.openbao.must("LIST", "auth/token/accessors")["data"]["keys"]
    found = [made.openbao.request("POST", "auth/token/lookup-accessor", {"accessor": each}) for each in everyone]
    ours = [answer["data"] for status, answer in found if status == 200 and answer["data"]["path"] == "auth/approle/login"]
    return sorted(ours, key=lambda each: each["issue_time"])


def test_files_get_a_lease_of_the_next_token_before_the_old_one_is_given_back(made):
    """At each new login files are rendered anew, then the old lease and the old token go; there is a living user all the time."""
    name = made.scope("relogin", grace="1s")
    made.filed.render(name)
    path = made.filed.top / name / "db.json"
    seen = {path.read_text()}

    def look() -> bool:
        found = path.read_text()  # never absent
        if found not in seen:
            user = json.loads(found)
            assert made.logs_in(user["DB_USER"], user["DB_PASSWORD"])
            seen.add(found)
        return len(seen) > 1

    wait_until(look, 100)
    assert made.filed.command("clear", name).returncode == 0
    made.becomes(name, 0)
    wait_until(lambda: len(logins(made)) == 1, 30)


def test_a_run_keeps_its_lease_until_its_token_ends_for_good(made):
    """A new login takes nothing from a run; it ends with the token that its lease hangs on, on the record."""
    name = made.scope("outlived", grace="1s")
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        wait_until(lambda: len(logins(made)) == 2, 60)
        assert child.poll() is None and len(made.leases(name)) == 1
        child.wait(60)
    assert made.filed.ended(audit_id) in ("lease_expired", "lease_revoked")
    made.becomes(name, 0)
