"""How long a lease lives: renewed while somebody holds it, replaced before its end, and never used after it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.leased import JSON, Leased, leased
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def made() -> Iterator[Leased]:
    """A stack of this file's own; each test has a role and a scope of its own in it."""
    with leased() as running:
        yield running


def test_a_lease_is_renewed_while_a_run_holds_it(made):
    """A run outlives the ttl of its lease by as long as it runs: the lease is renewed before its end, each time."""
    name = made.scope("renewed", role=("8s", "1h"))
    with made.running(name) as child:
        users = made.users(name)
        wait_until(lambda: made.told(child.pid)["leases"][0]["renewed"] >= 2, 60)
        assert (child.poll(), made.users(name), len(made.leases(name))) == (None, users, 1)
    made.becomes(name, 0)


def test_a_file_is_rendered_anew_before_its_lease_ends_for_good(made):
    """Where a max ttl ends all renewing a new generation is there before the old user is gone, and replaces it."""
    name = made.scope("reissued", role=("8s", "12s"), grace="1s")
    made.filed.render(name)
    path = made.filed.top / name / "db.json"
    seen = [json.loads(path.read_text())]
    first = made.filed.told(name)["id"]

    def look() -> bool:
        found = json.loads(path.read_text())  # never absent, and never one that does not open the database any more
        if found != seen[-1]:
            assert made.logs_in(found["DB_USER"], found["DB_PASSWORD"])
            seen.append(found)
        return len(seen) > 1

    wait_until(look, 90)
    assert made.filed.ended(first) == "rotated"
    made.filed.command("clear", name)
    made.becomes(name, 0)


def test_f13_a_run_ends_with_the_life_of_its_lease(made):
    """A run whose lease can live no longer is ended, on the record, and is not there any more when its user is gone."""
    name = made.scope("expired", role=("4s", "6s"), grace="1s")
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        child.wait(60)
    assert made.filed.ended(audit_id) == "lease_expired"
    made.becomes(name, 0)


def test_ttl_of_a_scope_bounds_what_is_leased_for_it(made):
    """A scope's ``ttl`` ends a run's lease whatever the engine would allow."""
    name = made.scope("bounded", ttl="4s", grace="1s")
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        assert made.told(child.pid)["leases"][0]["expires_in"] <= 4
        child.wait(60)
    assert made.filed.ended(audit_id) == "lease_expired"
    made.becomes(name, 0)


def test_a_file_is_cleared_at_the_end_of_its_lease_where_nothing_replaces_it(made):
    """While central takes no reservation nothing is rendered anew, and what has ended is cleared without asking anybody."""
    name = made.scope("unreplaced", ttl="4s", grace="1s")
    made.filed.render(name)
    audit_id = made.filed.told(name)["id"]
    with made.without_central():
        wait_until(lambda: not (made.filed.top / name).exists(), 60)
    assert made.filed.ended(audit_id) == "lease_expired"
    made.becomes(name, 0)


def test_a_rotation_ordered_by_central_makes_another_user(made):
    """``central rotate`` of the path of a leased secret renders its files anew; the user of before lives on for its ``grace``."""
    name = made.scope("ordered", grace="1h")
    made.filed.render(name)
    path = made.filed.top / name / "db.json"
    before = path.read_text()
    made.central("rotate", f"vault://database/creds/{name}", "--reason", "test")
    wait_until(lambda: path.read_text() != before, 60)
    assert made.filed.stack.agent.exec("--timeout", "60s", "--scope", name, "--", "/bin/true").returncode == 0
    made.becomes(name, 2)  # what was given back later is gone
    for user in (json.loads(before), json.loads(path.read_text())):
        assert made.logs_in(user["DB_USER"], user["DB_PASSWORD"])
    made.filed.command("clear", name)


def test_the_old_user_lives_until_who_reads_the_file_was_told(made, short):
    """While a consumer cannot be told of the new file the old user is left, over agents too; once it is told, that one goes."""
    door = short / "door"
    agent, command = made.filed.stack.agent, {"command": ["/usr/bin/test", "-e", str(door)], "min_interval": "1s"}
    name = made.scope("consumed", grace="1s", files=[{**JSON, "notify": command}])
    made.filed.render(name)
    (old,) = made.users(name)
    made.filed.render(name)
    wait_until(lambda: made.filed.told(name)["consumers"][0]["failures"], 60)
    assert old in made.users(name) and len(made.leases(name)) == 2
    for users, end in ((3, agent.stop), (4, agent.kill)):  # each login makes another generation
        end()
        agent.start()
        made.becomes(name, users)
        assert old in made.users(name)
    door.touch()
    made.becomes(name, 1)
    assert old not in made.users(name)
    made.filed.command("clear", name)
    made.becomes(name, 0)
