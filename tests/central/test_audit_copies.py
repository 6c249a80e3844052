"""The log is copied, verified from the copy, searched and followed the same on both databases, by the commands of operators."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.signing import read_key
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import PostgresServer


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def told(request, tmp_path_factory) -> Iterator[CentralProcess]:
    """Return a central on each kind of database, with two runs of two projects on its log."""
    server: PostgresServer | None = request.getfixturevalue("server") if request.param == "postgresql" else None
    with CentralProcess(
        tmp_path_factory.mktemp(request.param), agents={"server1": ["*"]}, operators={"prism-ops": ["prism"]}, server=server
    ) as running:
        host = Host(running)
        run = host.reserve(caller={"kind": "agent", "uid": 1000}, run_ref="run-7", purpose="deploy-check")
        host.end("success", run)
        other = host.reserve(project="other", job_id="job-1")
        host.end("failure", other, project="other")
        with running.client() as client:
            wait_until(lambda: client.get("/v1/audit/checkpoint").json().get("size") == 4)
        yield running
        host.client.close()


def audit(central: CentralProcess, *words: str, token: str | None = None, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``prism-vault audit`` as the operator of all projects."""
    credentials = {"PRISM_VAULT_CENTRAL_URL": central.url, "PRISM_VAULT_OPERATOR_TOKEN": token or central.operator_token}
    command = [sys.executable, "-m", "prism_vault_agent", "audit", *words]
    return subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=90, check=False, env=os.environ | credentials
    )


def test_an_export_verifies_where_it_came_from_and_elsewhere(told, tmp_path: Path):
    """An export has every row and the checkpoint, verifies with the log's key, from standard input too, and does not when cut."""
    file = tmp_path / "log.jsonl"
    key = ("--log-key", str(read_key(told.key_file).verifying_key))
    written = audit(told, "export", str(file))
    lines = file.read_text().splitlines()
    whole = audit(told, "verify", "--export", str(file), "--json", *key)
    piped = audit(told, "verify", "--export", "-", *key, given=file.read_text())
    cut = audit(told, "verify", "--export", "-", *key, given="\n".join(lines[:-1]) + "\n")

    assert (written.returncode, written.stdout, written.stderr) == (0, "", "")
    assert [json.loads(line)["index"] for line in lines[:-1]] == [0, 1, 2, 3]
    assert json.loads(lines[-1])["checkpoint"]["size"] == 4
    assert (whole.returncode, json.loads(whole.stdout)["leaves"]) == (0, 4)
    assert piped.returncode == 0, piped.stderr
    assert (cut.returncode, "was cut" in cut.stderr) == (65, True)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_the_database_itself_verifies(told):
    """The database is verified by its path or its URL while central serves."""
    ended = audit(told, "verify", "--json", "--database", str(told.setting("database")))

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["first_bad"] is None


@pytest.mark.parametrize(
    ("filters", "kinds"),
    [
        (("--run-ref", "run-7"), ["reserved"]),
        (("--job-id", "job-1"), ["reserved"]),
        (("--purpose", "deploy-check"), ["reserved"]),
        (("--host", "server1"), ["reserved", "success", "reserved", "failure"]),
        (("--outcome", "failure"), ["failure"]),
        (("--scope", "web", "--since", "1h", "--outcome", "success"), ["success"]),
        (("--until", "1h"), []),
    ],
)
def test_filters_find_on_both_databases(told, filters, kinds):
    """Every filter finds its events, and no others."""
    ended = audit(told, "find", "--json", *filters)

    assert ended.returncode == 0, ended.stderr
    assert [json.loads(line)["event"]["kind"] for line in ended.stdout.splitlines()] == kinds


def test_who_may_not_see_all_follows_its_own_and_exports_nothing(told):
    """An operator of one project follows that project's rows; to export or verify takes one of all projects."""
    token = told.operator_tokens["prism-ops"]
    with told.client(token) as client:
        page = client.get("/v1/audit/log").json()

    assert [row["index"] for row in page["rows"]] == [0, 1]
    assert (page["next"], page["size"], page["all_projects"]) == (4, 4, False)
    assert audit(told, "export", token=token).returncode == 77


def test_show_proves_each_event(told):
    """``show`` proves every event of a reservation with the key that it is given, and refuses another log's key."""
    reservation = told.events(run_ref="run-7")[0]["reservation_id"]
    key = str(read_key(told.key_file).verifying_key)
    shown = audit(told, "show", reservation, "--log-key", key)
    wrong = audit(told, "show", reservation, "--log-key", "x" + key)

    assert shown.returncode == 0, shown.stderr
    assert "event 1 is leaf 0 of 4" in shown.stdout
    assert wrong.returncode == 78


def test_a_question_for_news_waits_for_them(told):
    """An empty answer is held back until there is a row, and comes with it."""
    with told.client() as client:
        size = client.get("/v1/audit/log", params={"last": 1}).json()["size"]
        sent = Host(told).end("denied", new_id()).json()
        page = client.get("/v1/audit/log", params={"from": size, "wait": 20}).json()

    assert [row["n"] for row in page["rows"]] == [sent["n"]]
