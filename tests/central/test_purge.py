"""Purges by an operator and drops by age, through the real command and a real central, on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prism_vault_agent.central.log.purge import Selection, purge
from prism_vault_agent.central.storage import schema
from tests.central.host import Host
from tests.central.own_log import OwnLog
from tests.central.test_backup import central_command
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

REF = "run-of-a-person"


def bodies(central: CentralProcess) -> list[dict[str, Any]]:
    """Return every event as central shows it, bodies as they are."""
    with central.client() as client:
        answer = client.get("/v1/audit/events", params={"limit": 1000})
        answer.raise_for_status()
        shown: list[dict[str, Any]] = answer.json()["events"]
    return shown


def test_a_run_is_purged_while_central_serves(serving):
    """The command drops all rows of the run's reservations and no others; the log says who, why, and a hash of whose."""
    serving.start()
    host = Host(serving)
    for run_ref in (REF, "another"):
        host.end("success", host.reserve(run_ref=run_ref, caller={"kind": "agent", "uid": 1000}))
    wait_until(lambda: covered(serving, 4))

    ended = central_command(serving, "purge", "--run-ref", REF, "--reason", "asked by the person")

    assert (ended.returncode, ended.stdout.strip()) == (0, "2 bodies dropped"), ended.stderr
    shown = bodies(serving)
    assert [event["body"] == "" for event in shown] == [True, True, False, False, False]
    assert [event["dropped_by"] for event in shown] == [5, 5, None, None, None]
    said = json.loads(shown[4]["body"])
    assert (said["kind"], said["reason"], said["message"]) == ("admin", "purged", "asked by the person")
    assert "uid" in said["by"]
    assert REF not in shown[4]["body"]
    assert host.end("success", host.reserve()).status_code == 200


def covered(central: CentralProcess, size: int) -> bool:
    """Tell whether the newest checkpoint covers as many leaves."""
    with central.client() as client:
        answer = client.get("/v1/audit/checkpoint")
    return answer.status_code == 200 and answer.json()["size"] >= size


def test_bodies_go_by_age_and_the_log_goes_on(serving):
    """With ``bodies_after``, bodies of ended reservations go by themselves, that of an open one stays, and hosts append on."""
    serving.set(retention={"bodies_after": "1s"})
    serving.start()
    host = Host(serving)
    host.end("success", host.reserve())
    host.reserve()

    wait_until(lambda: [event["body"] == "" for event in bodies(serving)][:3] == [True, True, False], timeout=30)

    said = json.loads(next(event["body"] for event in bodies(serving) if event["host_id"] == "central"))
    assert (said["reason"], said["by"]) == ("retention", "central")
    assert host.end("success", host.reserve()).status_code == 200


def test_what_is_asked_for_must_all_be_so(databases):
    """Project and time together mean events of that project from before that time; a batch after the other finds all."""
    with OwnLog(databases.new()) as log:
        for number in range(300):
            log.render(project="other" if number % 3 else "prism", ending="denied")
        log.sequence()
        times = [row.received_at for row in log.rows(schema.event.c.n, schema.event.c.received_at)]
        before = times[400] + 1
        dropped = list(purge(log.store, log.readers, Selection(project="prism", before=before), {"reason": "purged"}))
        rows = log.rows(schema.event.c.n, schema.event.c.received_at, schema.event.c.kind, schema.event.c.body)

    gone = {row.n for row in rows if not row.body}
    assert sum(each.count for each in dropped) == len(gone)
    assert gone == {n for n in range(1, 601) if (n - 1) // 2 % 3 == 0 and times[n - 1] < before}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--reason", "x"), "what shall be purged"),
        (("--before", "yesterday", "--reason", "x"), "not a time"),
        (("--project", "prism", "--reason", "x" * 501), "500 characters"),
    ],
)
def test_a_purge_says_what_it_needs(tmp_path, arguments, why):
    """A purge of nothing, of no time or without a fit reason is a usage error in one line, and nothing is opened."""
    central = CentralProcess(tmp_path)
    central.write_config()

    ended = central_command(central, "purge", *arguments)

    assert ended.returncode == 64
    assert why in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not central.database.exists()
