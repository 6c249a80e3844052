"""Verification names the first bad index: of a log that was edited behind central's back, by whoever owns its file."""

from __future__ import annotations

import json
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.audit.event import canonical
from prism_vault_agent.central.verification.fault import Fault
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.stored import verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The log that is tampered with: n, host and what it is.
#  1 server1 reserved a   2 server2 reserved b   3 server1 success a   4 server2 failure b   5 server1 reserved c
#  6 server1 success c    7 server2 reserved d   8 server1 cleared c   9 server2 success d  10 server1 reserved e


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with the ten events above, written by a real central that has ended."""
    with CentralProcess(tmp_path_factory.mktemp("whole"), agents={"server1": ["*"], "server2": ["*"]}) as central:
        one, two = Host(central), Host(central, "server2")
        a, b = one.reserve(), two.reserve()
        one.end("success", a)
        two.end("failure", b)
        c = one.reserve()
        one.end("success", c)
        d = two.reserve()
        one.clear(c)
        two.end("success", d)
        one.reserve()
    return central.database


@pytest.fixture
def log(whole: Path, tmp_path: Path) -> Path:
    """Return a copy without the triggers and indexes that would stop the tampering."""
    copy = tmp_path / "audit.db"
    shutil.copy(whole, copy)
    database = sqlite3.connect(copy)
    for name in ("event_no_update", "event_no_delete", "event_no_replace"):
        database.execute(f"DROP TRIGGER {name}")
    for name in ("one_open", "one_final"):
        database.execute(f"DROP INDEX {name}")
    database.commit()
    database.close()
    return copy


def edit_body(log: Path, n: int, *, follow: bool = True, **changes: object) -> None:
    """Change fields of an event's bytes; with ``follow``, its columns too."""
    database = sqlite3.connect(log)
    (body,) = database.execute("SELECT body FROM event WHERE n = ?", [n]).fetchone()
    fields = json.loads(body) | changes
    database.execute("UPDATE event SET body = ? WHERE n = ?", [canonical(fields), n])
    if follow:
        database.execute(
            "UPDATE event SET kind = ?, prev_hash = ?, host_seq = ? WHERE n = ?",
            [fields["kind"], bytes.fromhex(fields["prev"]), fields["seq"], n],
        )
    database.commit()
    database.close()


def sql(*statements: str) -> Callable[[Path], None]:
    """Return a tampering by statements."""

    def tamper(log: Path) -> None:
        database = sqlite3.connect(log)
        for statement in statements:
            database.execute(statement)
        database.commit()
        database.close()

    return tamper


def swap(first: int, second: int) -> Callable[[Path], None]:
    """Return a tampering that swaps two rows."""
    return sql(
        f"UPDATE event SET n = -1 WHERE n = {first}",
        f"UPDATE event SET n = {first} WHERE n = {second}",
        f"UPDATE event SET n = {second} WHERE n = -1",
    )


COPY = (
    "INSERT INTO event SELECT {n}, randomblob(16), host_id, host_epoch, {seq}, prev_hash, reservation_id, kind, received_at, "
    "body FROM event WHERE n = {source}"
)

TAMPERINGS: dict[str, tuple[Callable[[Path], None], int]] = {
    "edited body": (lambda log: edit_body(log, 3, scopes=["db"]), 3),
    "edited body of the first event": (lambda log: edit_body(log, 1, scopes=["db"]), 1),
    "edited body, not canonical": (sql("UPDATE event SET body = CAST(body || x'20' AS BLOB) WHERE n = 4"), 4),
    "edited body, not json": (sql("UPDATE event SET body = x'ff' WHERE n = 4"), 4),
    "another outcome": (lambda log: edit_body(log, 4, kind="success"), 4),
    "edited link": (lambda log: edit_body(log, 5, prev="1" * 64), 5),
    "edited link of the first event": (lambda log: edit_body(log, 2, prev="1" * 64), 2),
    "edited number": (lambda log: edit_body(log, 6, seq=9), 6),
    "edited column kind": (sql("UPDATE event SET kind = 'failure' WHERE n = 6"), 6),
    "edited column host": (sql("UPDATE event SET host_id = 'server3' WHERE n = 7"), 7),
    "edited column reservation": (sql("UPDATE event SET reservation_id = randomblob(16) WHERE n = 8"), 8),
    "edited column event id": (sql("UPDATE event SET event_id = randomblob(16) WHERE n = 2"), 2),
    "deleted row": (sql("DELETE FROM event WHERE n = 5"), 5),
    "deleted first row": (sql("DELETE FROM event WHERE n = 1"), 1),
    "deleted rows of one host": (sql("DELETE FROM event WHERE n IN (6, 8)"), 6),
    "hole in the tail of one host": (sql("DELETE FROM event WHERE n = 8"), 8),
    "deleted row, indexes closed up": (sql("DELETE FROM event WHERE n = 3", "UPDATE event SET n = n - 1 WHERE n > 3"), 3),
    "swapped rows of one host": (swap(5, 6), 5),
    "swapped reservation and outcome": (swap(2, 4), 2),
    "duplicated row": (sql(COPY.format(n=11, seq=99, source=9)), 11),
    "inserted row": (
        sql("UPDATE event SET n = -n WHERE n > 4", "UPDATE event SET n = 1 - n WHERE n < 0", COPY.format(n=5, seq=77, source=3)),
        5,
    ),
}


def test_a_whole_log_verifies(whole):
    """What central wrote verifies: every row is looked at, in one chain for each host and epoch."""
    verdict = verdict_of(whole)

    assert (verdict.rows, verdict.chains, verdict.fault) == (10, 2, None)


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_named_by_its_first_bad_index(log, name):
    """Each tampering is found, at the index of the first row that is not as it was put in."""
    tamper, index = TAMPERINGS[name]
    tamper(log)

    fault = verdict_of(log).fault

    assert isinstance(fault, Fault)
    assert fault.n == index, fault


def test_every_single_changed_byte_of_an_event_is_found(log):
    """Whichever byte of an inner event is changed, verification names that event."""
    database = sqlite3.connect(log)
    (body,) = database.execute("SELECT body FROM event WHERE n = 3").fetchone()
    for at in range(len(body)):
        changed = bytearray(body)
        changed[at] ^= 1
        database.execute("UPDATE event SET body = ? WHERE n = 3", [bytes(changed)])
        database.commit()

        fault = verdict_of(log).fault

        assert fault is not None, at
        assert fault.n == 3, (at, fault)
    database.close()
