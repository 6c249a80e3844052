"""Where checkpoints are anchored, a body goes only after the checkpoint that covers it is in every place. On both databases."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from prism_vault_agent.central.anchoring import Anchoring
from prism_vault_agent.central.log.drop import Doomed, Dropped, drop
from prism_vault_agent.central.log.proofs import Proofs
from prism_vault_agent.central.log.purge import Selection, purge
from prism_vault_agent.central.log.retention import Retention
from prism_vault_agent.central.storage import schema
from tests.central.host import Host
from tests.central.own_log import Databases, Direct, OwnLog
from tests.central.test_backup import central_command
from tests.central.test_purge import bodies, covered
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prism_vault_agent.central.log.proofs import Signed
    from tests.support.central import CentralProcess


@pytest.fixture
def log(databases: Databases) -> Iterator[OwnLog]:
    """Return a log of three reservations that are over, under three checkpoints."""
    with OwnLog(databases.new()) as opened:
        for _ in range(3):
            opened.render()
            opened.sequence()
        yield opened


def gone(log: OwnLog) -> list[int]:
    """Return which rows have no body."""
    return [n for n, body in log.rows(schema.event.c.n, schema.event.c.body) if not body]


@pytest.mark.parametrize(
    ("anchored", "rows"), [(0, []), (1, [1]), (4, [1, 2, 3, 4]), (6, [1, 2, 3, 4, 5, 6]), (99, [1, 2, 3, 4, 5, 6])]
)
def test_what_no_anchored_checkpoint_covers_is_kept(log, anchored, rows):
    """Only rows under the leaves of the anchored checkpoint are dropped; others wait, and the event says what was anchored."""
    work = partial(drop, doomed=Doomed(range(1, 7)), why={"reason": "purged"}, anchored=anchored)
    dropped = cast("Dropped", log.store.run([work])[0])

    assert (dropped.count, dropped.wait) == (len(rows), 6 - len(rows))
    assert gone(log) == rows
    said = [json.loads(body) for n, body in log.rows(schema.event.c.n, schema.event.c.body) if n == dropped.n]
    assert [each["anchored"] for each in said] == ([anchored] if rows else [])


def test_a_purge_keeps_what_is_not_anchored(log):
    """A purge drops what the anchored checkpoint covers, counts the rest as waiting, and drops that later."""
    counted = [
        [
            (each.count, each.wait)
            for each in purge(log.store, log.readers, Selection(project="prism"), {"reason": "purged"}, anchored)
        ]
        for anchored in (2, 6)
    ]

    assert counted == [[(2, 4)], [(4, 0)]]


class Remembering:
    """A place that keeps what it is given, unless it is closed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open = True

    async def write(self, _signed: Signed) -> None:
        """Take a checkpoint."""
        if not self.open:
            raise OSError("the place is closed")


def test_retention_waits_for_every_place(log):
    """Bodies go by age only once the checkpoint over them is in every place that is configured, and not for one of them."""
    one, other = Remembering("file"), Remembering("journal")
    other.open = False

    async def scenario() -> tuple[list[int], list[bool]]:
        anchoring = Anchoring(Proofs(log.readers, 0.0), [one, other], 1.0)
        retention = Retention(log.readers, cast("Any", Direct(log)), -60.0, anchoring.covered)
        counts = [await retention.turn()]
        states = [await anchoring._anchor(place) for place in (one, other)]
        counts.append(await retention.turn())
        other.open = True
        states += [await anchoring._anchor(place) for place in (one, other)]
        return [*counts, await retention.turn()], states

    assert asyncio.run(scenario()) == ([0, 0, 6], [True, False, True, True])
    assert gone(log) == [1, 2, 3, 4, 5, 6]


def test_without_an_anchor_the_checkpoint_is_enough(log):
    """Where nothing is anchored, bodies go as soon as a checkpoint covers them, and no event speaks of an anchor."""
    assert asyncio.run(Retention(log.readers, cast("Any", Direct(log)), -60.0).turn()) == 6
    assert "anchored" not in json.loads(log.rows(schema.event.c.body)[-1].body)


def log_of(central: CentralProcess) -> dict[str, Any]:
    """Return how the log is proved so far."""
    try:
        return dict(central.setting("log"))
    except KeyError:
        return {}


def failures(central: CentralProcess) -> int:
    """Return how many times the central that runs could not anchor."""
    return sum("anchor_failed" in line for line in central.log)


def test_a_place_that_is_away_holds_bodies_back_also_over_a_restart(serving, tmp_path: Path):
    """By age and by command nothing goes while the place is away, before and after a restart; when it is back, all of it goes."""
    place = tmp_path / "place"
    anchor = {"every": "1s", "file": str(place / "anchors")}
    serving.set(retention={"bodies_after": "1s"}, log={**log_of(serving), "anchor": anchor})
    serving.start()
    host = Host(serving)
    host.end("success", host.reserve())
    wait_until(lambda: covered(serving, 2))
    refused = central_command(serving, "purge", "--project", "prism", "--reason", "test")
    wait_until(lambda: failures(serving) >= 3, timeout=60)
    kept = [event["body"] != "" for event in bodies(serving)]
    place.mkdir(mode=0o700)
    wait_until(lambda: [event["body"] == "" for event in bodies(serving)][:2] == [True, True], timeout=60)
    said = [json.loads(event["body"]) for event in bodies(serving) if event["host_id"] == "central"]
    assert serving.stop() == 0

    place.rename(tmp_path / "away")
    serving.log.clear()
    serving.start()
    host = Host(serving)
    host.end("success", host.reserve())
    wait_until(lambda: failures(serving) >= 3, timeout=60)
    held = [event["n"] for event in bodies(serving) if event["body"] == ""]
    (tmp_path / "away").rename(place)
    wait_until(lambda: len([event for event in bodies(serving) if event["body"] == ""]) == 4, timeout=60)

    assert (refused.returncode, "not anchored" in refused.stderr) == (75, True)
    assert kept == [True, True]
    assert [(each["reason"], each["anchored"] >= 2) for each in said] == [("retention", True)]
    assert held == [1, 2]


def test_a_purge_anchors_before_it_drops(serving, tmp_path: Path):
    """The command anchors the newest checkpoint itself, whatever central has done so far, and drops what that covers."""
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    serving.start()
    host = Host(serving)
    host.end("success", host.reserve())
    wait_until(lambda: covered(serving, 2))
    anchor = {"file": str(place / "anchors")}
    serving.set(log={**log_of(serving), "anchor": anchor})
    serving.write_config()

    ended = central_command(serving, "purge", "--project", "prism", "--reason", "test")

    assert (ended.returncode, ended.stdout.strip()) == (0, "2 bodies dropped"), ended.stderr
    (line,) = (place / "anchors").read_text().splitlines()
    assert json.loads(line)["size"] >= 2
