"""Leased secrets, end to end with a real PostgreSQL: one lease a release, gone when nobody holds it any more (G6)."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.agent.asking import pid_of
from tests.support.leased import Leased, leased
from tests.support.memory import copies
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRINT = ("/bin/sh", "-c", 'printf \'%s %s\' "$DB_USER" "$DB_PASSWORD"; exec >&-; exec sleep 600')


@pytest.fixture(scope="module")
def made() -> Iterator[Leased]:
    """A stack of this file's own; each test has a role and a scope of its own in it."""
    with leased() as running:
        yield running


def test_a_run_has_one_user_of_its_own_which_ends_with_it(made):
    """User and password of one run are of one lease, they open the database, and do not any more after the run ended."""
    name = made.scope("oneuser")
    with made.running(name, *PRINT) as child:
        assert child.stdout is not None
        user, password = child.stdout.read().split()
        told = made.told(child.pid)
        assert made.count(name) == (1, 1) and made.users(name) == [user]
        assert made.logs_in(user, password)
        assert [each["path"] for each in told["leases"]] == [f"database/creds/{name}"]
        assert 0 < told["leases"][0]["expires_in"] <= 3600
    made.becomes(name, 0)
    assert not made.logs_in(user, password)
    row = made.filed.rows(told["id"])[1]
    assert row["leases"][0]["path"] == f"database/creds/{name}" and len(row["leases"][0]["lease_id"]) == 32
    wait_until(lambda: f"{told['id']}: database/creds/{name}" in made.notes("leases_revoked"), 30)


def test_two_runs_have_leases_of_their_own(made):
    """What one of two runs of a scope has is given back when it ends; the other one keeps its own."""
    name = made.scope("tworuns")
    with made.running(name) as other:
        with made.running(name):
            assert made.count(name) == (2, 2)
        made.becomes(name, 1)
        assert other.poll() is None
    made.becomes(name, 0)


def test_a_file_keeps_its_lease_and_a_clear_gives_it_back(made):
    """Files hold one lease a generation; a new one replaces the old after the switch, and a clear leaves none."""
    name = made.scope("filelease", grace="1s")
    made.filed.render(name)
    path = made.filed.top / name / "db.json"
    first = json.loads(path.read_text())
    assert made.count(name) == (1, 1) and made.logs_in(first["DB_USER"], first["DB_PASSWORD"])
    made.filed.render(name)
    second = json.loads(path.read_text())
    assert second["DB_USER"] != first["DB_USER"]
    made.becomes(name, 1)
    assert made.logs_in(second["DB_USER"], second["DB_PASSWORD"]) and not made.logs_in(first["DB_USER"], first["DB_PASSWORD"])
    assert made.filed.command("clear", name).returncode == 0
    assert not path.exists()
    made.becomes(name, 0)


def judged(made: Leased, name: str, within: str) -> tuple[dict[str, str], Path]:
    """Render a scope whose files are judged each second, and rotate it; return what was rendered first, and what says go."""
    place = made.filed.top.parent / f"judge-{name}"
    place.mkdir()
    judge, go, tries = place / "judge", place / "go", place / "tries"
    judge.write_text(f"#!/bin/sh\necho >> {tries}\ntest -e {go}\n")
    judge.chmod(0o755)
    made.scope(name, grace="1s", health={"command": [str(judge)], "within": within})
    made.filed.render(name)
    first = json.loads((made.filed.top / name / "db.json").read_text())
    assert made.filed.command("rotate", name).returncode == 0
    wait_until(lambda: tries.exists() and len(tries.read_text()) > 2, 30)  # over a second: longer than the grace
    return first, go


def test_a_lease_waits_until_the_next_generation_is_found_to_be_well(made):
    """While the new generation is judged both users open the database; when all is well the old one's lease is given back."""
    first, go = judged(made, "welljudged", "60s")
    second = json.loads((made.filed.top / "welljudged" / "db.json").read_text())
    assert second["DB_USER"] != first["DB_USER"] and made.count("welljudged") == (2, 2)
    assert made.logs_in(first["DB_USER"], first["DB_PASSWORD"]) and made.logs_in(second["DB_USER"], second["DB_PASSWORD"])
    go.touch()
    made.becomes("welljudged", 1)
    assert made.users("welljudged") == [second["DB_USER"]] and made.logs_in(second["DB_USER"], second["DB_PASSWORD"])


def test_what_is_rolled_back_to_has_its_lease_still(made):
    """Where the new generation is not well its own lease is given back; the old files have the user that opens the database."""
    first, _ = judged(made, "illjudged", "4s")
    wait_until(lambda: made.notes("files_rolled_back"), 30)
    made.becomes("illjudged", 1)
    assert json.loads((made.filed.top / "illjudged" / "db.json").read_text()) == first
    assert made.users("illjudged") == [first["DB_USER"]] and made.logs_in(first["DB_USER"], first["DB_PASSWORD"])


def test_f14_a_lease_that_the_provider_ends_is_taken_back_within_a_poll(made):
    """A lease that is revoked at the provider ends the run and clears the file that hold it."""
    name = made.scope("vanished")
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        made.filed.render(name)
        file_id = made.filed.told(name)["id"]
        made.openbao.must("PUT", f"sys/leases/revoke-prefix/database/creds/{name}", {})
        wait_until(lambda: child.poll() is not None and not (made.filed.top / name).exists(), 30)
        assert child.returncode == -signal.SIGTERM
    assert made.filed.ended(audit_id) == made.filed.ended(file_id) == "lease_revoked"
    made.becomes(name, 0)


def test_a_child_token_that_the_provider_ends_takes_that_runs_leases_and_no_others(made):
    """A revoked child token ends its lease, and its run within a poll; another run of the scope keeps its own."""
    name = made.scope("childless")
    with made.running(name, *PRINT) as other, made.running(name) as child:
        assert other.stdout is not None
        user, password = other.stdout.read().split()
        audit_id = made.told(child.pid)["id"]
        (accessor,) = made.children(audit_id)
        made.openbao.must("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        made.becomes(name, 1)
        assert made.users(name) == [user]
        wait_until(lambda: child.poll() is not None, 30)
        assert made.filed.ended(audit_id) == "lease_revoked"
        assert other.poll() is None and made.logs_in(user, password)
    made.becomes(name, 0)


def test_a_child_token_can_read_and_no_more(made):
    """It is a child of the agent's token, named for its release, without the default policy, and no older than ``ttl`` says."""
    name = made.scope("narrow", ttl="30m")
    with made.running(name) as child:
        audit_id = made.told(child.pid)["id"]
        (accessor,) = made.children(audit_id)
        found = made.openbao.must("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
        assert (found["policies"], found["orphan"], found["num_uses"]) == (["prism-vault"], False, 0)
        assert (found["explicit_max_ttl"], found["meta"]) == (1800, {"audit_id": audit_id})


def test_a_revocation_of_the_reference_by_central_takes_the_lease_along(made):
    """``central revoke`` of the path of a leased secret ends its run and clears its file, and no lease is left."""
    name = made.scope("revoked")
    with made.running(name) as child:
        made.filed.render(name)
        made.central("revoke", "--reference", f"vault://database/creds/{name}", "--reason", "test")
        wait_until(lambda: child.poll() is not None and not (made.filed.top / name).exists(), 30)
    made.becomes(name, 0)


def test_plan_tells_what_is_leased(made):
    """``plan --diff`` names what a release would get a lease for, before any was made, and makes none."""
    name = made.scope("planned")
    before = json.loads(made.filed.command("plan", "--diff", "--json", name).stdout)
    assert [each["leased"] for each in before["bindings"]] == [True, True]
    assert before["differences"][0]["rendered"] is None and made.count(name) == (0, 0)
    assert f"vault://database/creds/{name}#username (leased)" in made.filed.command("plan", name).stdout
    made.filed.render(name)
    after = json.loads(made.filed.command("plan", "--diff", "--json", name).stdout)
    assert after["differences"] == [{"scope": name, "path": f"database/creds/{name}", "rendered": "leased", "newest": None}]
    made.filed.command("clear", name)
    made.becomes(name, 0)


@pytest.mark.root  # the agent is not dumpable: its memory is root's to see
def test_g4_no_value_of_a_lease_is_kept_anywhere(made):
    """Neither the password nor a token is in the agent's log, its state, its memory, its status, or a row."""
    name = made.scope("nowhere")
    agent = made.filed.stack.agent
    with made.running(name, *PRINT) as child:
        assert child.stdout is not None
        password = child.stdout.read().split()[1]
        places = [agent.log, json.dumps(agent.status()), *(event["body"] for event in made.filed.stack.central.events())]
        places += [path.read_text(errors="replace") for path in (agent.directory / "state").rglob("*") if path.is_file()]
        assert [place for place in places if password in place] == []
        assert copies(pid_of(agent), password) == 0
        assert copies(child.pid, password) > 0, "it can be found where it is"
    made.becomes(name, 0)
