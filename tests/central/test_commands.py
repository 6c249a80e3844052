"""``prism-vault audit`` and ``prism-vault central`` as an operator types them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.audit.event import audit_id, new_id
from prism_vault_agent.central.storage.schema import REVISION
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CentralProcess]:
    """Return a central whose log has a run that was released and cleared, a failure, and a denial."""
    with CentralProcess(tmp_path_factory.mktemp("told"), operators={"prism-ops": ["prism"]}) as running:
        host = Host(running)
        run = host.reserve(caller={"kind": "agent", "uid": 1000}, run_ref="run-7")
        host.end("success", run)
        host.clear(run)
        host.end("failure", host.reserve(scopes=["db"]), scopes=["db"])
        host.end("denied", new_id(), run_ref="\x1b[31mred\nline", message="no")
        wait_until(lambda: covered(running) == 6)
        yield running


def covered(central: CentralProcess) -> int:
    """Return how many leaves the newest checkpoint is about."""
    with central.client() as client:
        return int(client.get("/v1/audit/checkpoint").json().get("size", 0))


def audit(central: CentralProcess, *arguments: str, token: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``prism-vault audit``, by default with the operator's token and central's URL in the environment."""
    environment = {
        **os.environ,
        "PRISM_VAULT_CENTRAL_URL": central.url,
        "PRISM_VAULT_OPERATOR_TOKEN": central.operator_token if token is None else token,
        **env,
    }
    command = [sys.executable, "-m", "prism_vault_agent", "audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_tail_shows_the_newest_events(told):
    """The table has a head and one aligned line for each event; control characters are escaped."""
    lines = audit(told, "tail").stdout.splitlines()

    assert lines[0].split() == ["n", "time", "host", "kind", "scope", "purpose", "caller", "run/job", "audit", "id", "reason"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4", "5", "6"]
    assert "agent/uid 1000" in lines[1]
    assert "\\x1b[31mred\\nline" in lines[6]
    assert len({line.index("server1") for line in lines[1:]}) == 1


def test_tail_shows_as_many_as_are_asked_for(told):
    """``-n`` says how many, and a number out of range is a usage error."""
    assert len(audit(told, "tail", "-n", "2", "--json").stdout.splitlines()) == 2
    assert audit(told, "tail", "-n", "0").returncode == 64


def test_tail_follows(told):
    """With ``-f`` an event that comes later is printed."""
    environment = {
        **os.environ,
        "PRISM_VAULT_CENTRAL_URL": told.url,
        "PRISM_VAULT_OPERATOR_TOKEN": told.operator_token,
    }
    command = [sys.executable, "-m", "prism_vault_agent", "audit", "tail", "-f", "-n", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as following:
        assert following.stdout is not None
        following.stdout.readline()
        reservation = Host(told, "server1").end("denied", new_id()).json()["audit_id"]
        seen = json.loads(following.stdout.readline())["audit_id"]
        following.terminate()

    assert seen == reservation


@pytest.mark.parametrize(
    ("filters", "kinds"),
    [
        (("--run-ref", "run-7"), ["reserved"]),
        (("--scope", "db"), ["reserved", "failure"]),
        (("--kind", "cleared"), ["cleared"]),
        (("--purpose", "service", "--scope", "web"), ["reserved"]),
        (("--host", "server9"), []),
        (("--since", "1h", "--kind", "success"), ["success"]),
        (("--until", "1h"), []),
        (("--outcome", "failure"), ["failure"]),
        (("--outcome", "success", "--scope", "web"), ["success"]),
        (("--since", "2999-01-01T00:00:00Z"), []),
    ],
)
def test_find_narrows(told, filters, kinds):
    """Each filter finds its events, as JSON lines with the event inside."""
    lines = audit(told, "find", "--json", *filters).stdout.splitlines()

    assert [json.loads(line)["event"]["kind"] for line in lines] == kinds


def test_show_tells_the_life_of_a_reservation(told):
    """``show`` prints every event of an audit id in order; an unknown one ends with 66, a wrong one with 64."""
    reservation = told.events(run_ref="run-7")[0]["reservation_id"]
    shown = [json.loads(line) for line in audit(told, "show", audit_id(reservation), "--json").stdout.splitlines()]

    assert [event["event"]["kind"] for event in shown] == ["reserved", "success", "cleared"]
    assert [event["proof"]["index"] for event in shown] == [0, 1, 2]
    assert audit(told, "show", audit_id(new_id())).returncode == 66
    assert audit(told, "show", "pva_1").returncode == 64


def test_verify_says_that_the_log_is_whole(told):
    """Over HTTP and from the file beside the running central, every event is counted."""
    over_http = audit(told, "verify")
    from_file = audit(told, "verify", "--json", "--database", str(told.database))

    assert (over_http.returncode, from_file.returncode) == (0, 0)
    assert "the log is whole" in over_http.stdout
    assert json.loads(from_file.stdout)["first_bad"] is None
    assert json.loads(from_file.stdout)["rows"] >= 6


def test_verify_names_the_first_bad_index(told, tmp_path):
    """A copy that was edited ends with 65 and one line that names the index; the copy is not written to."""
    copy = tmp_path / "copy.db"
    with sqlite3.connect(told.database) as database:
        database.execute("VACUUM INTO ?", [str(copy)])
    database.close()
    with sqlite3.connect(copy) as database:
        database.execute("DROP TRIGGER event_no_delete")
        database.execute("DELETE FROM event WHERE n = 2")
    database.close()
    before = copy.read_bytes()

    ended = audit(told, "verify", "--database", str(copy))

    assert ended.returncode == 65
    assert "first bad index 2" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert copy.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["copy.db"]


def test_verify_needs_an_operator_who_sees_all(told):
    """An operator of one project cannot tell a hidden row from a missing one, so verify refuses with 77."""
    ended = audit(told, "verify", token=told.operator_tokens["prism-ops"])

    assert ended.returncode == 77
    assert "all projects" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "status"),
    [
        (("tail",), {"PRISM_VAULT_OPERATOR_TOKEN": ""}, 64),
        (("tail",), {"PRISM_VAULT_CENTRAL_URL": ""}, 64),
        (("tail",), {"PRISM_VAULT_CENTRAL_URL": "ftp://x"}, 64),
        (("tail",), {"PRISM_VAULT_OPERATOR_TOKEN": "wrong"}, 77),
        (("tail",), {"PRISM_VAULT_CENTRAL_URL": "http://127.0.0.1:1"}, 75),
        (("tail",), {"PRISM_VAULT_CENTRAL_URL": "http://central.example:80"}, 78),
        (("find", "--since", "yesterday"), {}, 64),
        (("verify", "--database", "/nonexistent"), {}, 64),
        (("verify", "--database", "/etc/passwd"), {}, 78),
        ((), {}, 64),
    ],
)
def test_what_is_wrong_is_told_in_one_line(told, arguments, env, status):
    """Each failure has its exit status and one line that never holds the token."""
    ended = audit(told, *arguments, **env)

    assert ended.returncode == status, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert told.operator_token not in ended.stderr
    assert ended.stdout == ""


def test_the_token_may_come_from_a_file(told, tmp_path):
    """``--token-file`` is read instead of the environment."""
    file = tmp_path / "token"
    file.write_text(told.operator_token + "\n")

    assert audit(told, "tail", "--token-file", str(file), token="wrong").returncode == 0


def test_central_is_migrated_and_served_by_its_commands(tmp_path):
    """``central migrate`` makes the database, says so again the second time, and ``central serve`` then serves it."""
    central = CentralProcess(tmp_path)
    central.write_config()
    command = [sys.executable, "-m", "prism_vault_agent", "central"]
    config = ["--config", str(central.config_file)]
    first, second = (subprocess.run([*command, "migrate", *config], capture_output=True, text=True, check=True) for _ in range(2))
    with subprocess.Popen([*command, "serve", *config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        listening = serving.stdout.readline()
        serving.terminate()
        serving.communicate()

    assert f"is now at revision {REVISION}" in first.stdout
    assert f"was already at revision {REVISION}" in second.stdout
    assert listening.startswith("listening on http://127.0.0.1:")
    assert serving.returncode == 0
    shutil.rmtree(central.database.parent)
