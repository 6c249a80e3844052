"""Rows that are condensed, and read by other processes, give the verdict of all of them looked at one by one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from prism_vault_agent.audit.event import canonical, parse
from prism_vault_agent.central.verification.databases import open_database
from prism_vault_agent.central.verification.elsewhere import Elsewhere
from prism_vault_agent.central.verification.processes import Processes
from prism_vault_agent.central.verification.verify import Verdict, verify
from tests.central.own_log import KEY, Databases
from tests.central.owner import Owner
from tests.central.test_verify_rules import InMemory, indexed, log_of
from tests.support.bulk import fill
from tests.support.soak import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def one_by_one(look_and_condense: Any, parts: Iterable[Any]) -> Iterator[Any]:
    """Look at each row of the parts, and condense none."""
    (look,) = look_and_condense.args
    return map(look, parts)


ROWS = log_of(40, 3)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["swap", "remove", "again", "body", "leaf", "number", "follow"]), st.integers(0, 39), st.integers(0, 39)
    ),
    max_size=3,
)


@settings(max_examples=count(60, 10_000), deadline=None)
@given(changes=CHANGES, sizes=st.sets(st.integers(1, 40), max_size=4), held=st.integers(0, 60), size=st.integers(1, 41))
def test_rows_that_are_condensed_give_the_verdict_of_all(
    changes: list[tuple[str, int, int]], sizes: set[int], held: int, size: int
):
    """Whatever is changed, and whatever is held of the log, what is left of rows tells the same as each of them."""
    rows = ROWS
    log = InMemory([*rows], tuple(sorted(sizes)))
    for what, at, other in changes:
        at, other = at % len(log.rows), other % len(log.rows)  # noqa: PLW2901 - rows get fewer
        row = log.rows[at]
        if what == "swap":
            log.rows[at], log.rows[other] = log.rows[other], row
        elif what == "remove":
            del log.rows[at]
        elif what == "again":
            log.rows.insert(other, row)
        elif what == "body":
            log.rows[at] = row._replace(body=canonical(parse(row.body) | {"purpose": "other"}))
        elif what == "leaf":
            log.rows[at] = row._replace(leaf=bytes(32))
        elif what == "number":
            log.rows[at] = row._replace(n=other + 1)
        else:
            log.rows = indexed(log.rows)

    def told(**more: Any) -> Verdict:
        promised = {rows[held].n: (rows[held].leaf or b"", "a receipt")} if held < len(rows) else {}
        elsewhere = Elsewhere(heads={("server1", rows[1].host_epoch.hex()): {held: ("0" * 64, "a head")}}, leaves=promised)
        log.parts = lambda: (log.rows[at : at + size] for at in range(0, len(log.rows), size))  # type: ignore[method-assign, misc]
        return verify(log, keys=[KEY.verifying_key], elsewhere=elsewhere, **more)

    assert told() == told(spread=one_by_one)


def verdicts(database: str) -> list[Verdict]:
    """Return what other processes find, what this one does, and what it does row by row."""
    processes = Processes()
    try:
        found: list[Verdict] = []
        for spread in (processes.spread, map, one_by_one):
            with open_database(database) as log:
                found.append(verify(log, keys=[KEY.verifying_key], spread=spread))
        return found
    finally:
        processes.close()


def test_other_processes_read_a_database_themselves(databases: Databases):
    """Parts that are read over other connections give the same verdict of a log of several parts, whole or not."""
    database = databases.new()
    fill(database, databases.owner(database), 10_000, KEY)
    whole = verdicts(database)
    owner = Owner(databases, database)
    owner.unguard()
    owner.run("UPDATE event SET received_at = received_at + 1 WHERE n = 9000")
    changed = verdicts(database)

    assert (whole[0].rows, whole[0].leaves, whole[0].checkpoints, whole[0].fault) == (10_000, 10_000, 10, None)
    assert changed[0].fault is not None
    assert changed[0].fault.n == 9_000
    assert whole == [whole[0]] * 3
    assert changed == [changed[0]] * 3


def test_what_cannot_be_read_is_told_behind_what_can(sqlite_databases: Databases):
    """Where pages of a file are damaged, the rows before them are verified, and the first that cannot be read is named."""
    database = sqlite_databases.new()
    fill(database, "", 10_000, KEY)
    with open_database(database) as log:
        (body,) = [row[11] for part in log.parts() for row in log.rows(part) if isinstance(row, tuple) and row[1] == 7_000]
    content = bytearray(Path(database).read_bytes())
    page = content.index(body) // 4096 * 4096
    content[page : page + 4096] = b"\xff" * 4096
    Path(database).write_bytes(content)
    found = verdicts(database)

    assert found[0].fault is not None
    assert 6_900 < found[0].fault.n <= 7_000
    assert "cannot be read from there on" in found[0].fault.what
    assert [each.fault for each in found] == [found[0].fault] * 3
