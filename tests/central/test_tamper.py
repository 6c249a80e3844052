"""Whatever the owner of the database does to the log, verification tells, and names the first bad index. On both databases.

Where the log that is left is one that could have been, it is told by what others hold: a checkpoint, a head, a receipt.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pytest

from prism_vault_agent.audit.event import canonical, digest, new_id
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.verification.databases import open_database
from prism_vault_agent.central.verification.elsewhere import Elsewhere
from prism_vault_agent.central.verification.export import sealed
from prism_vault_agent.central.verification.verify import Verdict, verify
from prism_vault_agent.proof.keys import SigningKey
from tests.central.own_log import KEY, OwnLog
from tests.central.owner import Owner, columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.central.own_log import Databases

# What is tampered with: n, host and kind, with a checkpoint behind 4, 8 and 12.
#  1 server1 reserved   2 server1 success   3 server2 reserved   4 server2 success
#  5 server1 reserved   6 server1 success   7 server2 reserved   8 server2 success
#  9 server1 reserved  10 server1 success  11 server2 reserved  12 server2 success
FORGER = SigningKey.from_seed(KEY.verifying_key.name, b"\x01" * 32)


class Case(NamedTuple):
    """A log, who owns its database, and what others hold of it."""

    databases: Databases
    database: str
    log: OwnLog
    owner: Owner
    note: str
    head: tuple[tuple[str, str], int, str]
    leaf: bytes


@pytest.fixture
def case(databases: Databases) -> Iterator[Case]:
    """Return a log of twelve events."""
    database = databases.new()
    with OwnLog(database) as log:
        for _ in range(3):
            log.render("server1")
            log.render("server2")
            log.sequence()
        note = log.rows(schema.checkpoint.c.size, schema.checkpoint.c.note)[-1].note
        leaf = log.rows(schema.leaf.c.idx, schema.leaf.c.hash)[-1].hash
        chain = log.chains["server2"]
        owner = Owner(databases, database)
        yield Case(databases, database, log, owner, note, (("server2", chain.epoch), chain.seq, chain.head), bytes(leaf))


def verdict_on(case: Case, elsewhere: Elsewhere | None = None) -> Verdict:
    """Verify with the log's true key."""
    with open_database(case.database) as log:
        return verify(log, keys=[KEY.verifying_key], elsewhere=elsewhere)


def held(case: Case, *what: str) -> Elsewhere:
    """Return what an agent holds of the twelve events: the newest checkpoint, the head of its chain, the newest receipt."""
    found = Elsewhere()
    if "note" in what:
        found.checkpoints.append(sealed(12, case.note, "the agent"))
    if "head" in what:
        chain, seq, hashed = case.head
        found.heads[chain] = {seq: (hashed, "the agent")}
    if "receipt" in what:
        found.leaves[12] = (case.leaf, "the agent")
    return found


def update(owner: Owner) -> None:
    """Change what an event says."""
    owner.write(5, {**owner.body(5), "scopes": ["db"]})


def update_with_its_leaf(owner: Owner) -> None:
    """Change what an event says, and make the tree of that."""
    update(owner)
    owner.regrow()


def update_with_everything(owner: Owner) -> None:
    """Change what an event says, let the events behind follow it, and make the tree of that."""
    update(owner)
    owner.rechain(5)
    owner.regrow()


def update_of_a_time(owner: Owner) -> None:
    """Change when an event came."""
    owner.run("UPDATE event SET received_at = received_at + 1 WHERE n = 6")


def update_of_a_column(owner: Owner) -> None:
    """Change by what an event is found."""
    owner.run("UPDATE event SET kind = 'failure' WHERE n = 6")


def delete(owner: Owner) -> None:
    """Remove an event."""
    owner.run("DELETE FROM event WHERE n = 6")


def delete_with_its_leaf(owner: Owner) -> None:
    """Remove an event and its leaf."""
    owner.run("DELETE FROM event WHERE n = 6")
    owner.run("DELETE FROM leaf WHERE n = 6")


def delete_and_close_up(owner: Owner) -> None:
    """Remove what one reservation did, and make the tree of what is left."""
    owner.run("DELETE FROM event WHERE n IN (7, 8)")
    owner.regrow()


def delete_the_leaves(owner: Owner) -> None:
    """Remove leaves of events that stay, so that they would get new ones."""
    owner.run("DELETE FROM leaf WHERE idx >= 6")


def truncate(owner: Owner) -> None:
    """Empty the table of events."""
    owner.empty("event")


def replace(owner: Owner) -> None:
    """Put another event in the place of one."""
    at = owner.run("SELECT received_at FROM event WHERE n = 5")[0][0]
    other = {**owner.body(5), "event_id": new_id(), "purpose": "curiosity"}
    owner.run("DELETE FROM event WHERE n = 5")
    owner.run(f"INSERT INTO event VALUES ({', '.join('?' * 10)})", 5, *columns(other), at, canonical(other))


def reorder(owner: Owner) -> None:
    """Swap two events of one host."""
    for before, after in ((5, -1), (6, 5), (-1, 6)):
        owner.run("UPDATE event SET n = ? WHERE n = ?", after, before)


def reorder_leaves(owner: Owner) -> None:
    """Swap the leaves of two hosts' events, so that the log says another order."""
    for before, after in ((6, -1), (7, 6), (-1, 7)):
        owner.run("UPDATE leaf SET n = ? WHERE n = ?", after, before)
    owner.regrow()


def forge_a_row(owner: Owner) -> None:
    """Insert an event of a reservation that never was, behind those that are there, which does not continue a chain."""
    at = owner.run("SELECT received_at FROM event WHERE n = 12")[0][0]
    forged = {**owner.body(12), "event_id": new_id(), "reservation": new_id(), "kind": "denied", "seq": 8}
    owner.run(f"INSERT INTO event VALUES ({', '.join('?' * 10)})", 13, *columns(forged), at, canonical(forged))


def forge_a_row_between(owner: Owner) -> None:
    """Insert an event that continues its host's chain, let all behind follow it, and make the tree of that."""
    at = owner.run("SELECT received_at FROM event WHERE n = 8")[0][0]
    before = owner.body(6)
    forged = {**before, "event_id": new_id(), "seq": 99, "kind": "cleared"}
    owner.run("UPDATE event SET n = -n WHERE n >= 9")
    owner.run("UPDATE event SET n = 1 - n WHERE n < 0")
    owner.run(f"INSERT INTO event VALUES ({', '.join('?' * 10)})", 9, *columns(forged), at, canonical(forged))
    owner.rechain(6)
    owner.empty("leaf")
    owner.regrow()


def forge_a_checkpoint(owner: Owner) -> None:
    """Change an event with everything behind it, and sign the new tree with a key of one's own."""
    update_with_everything(owner)
    owner.regrow(FORGER, beyond=4)


def forge_the_note(owner: Owner) -> None:
    """Put another root into a checkpoint, whose signature stays."""
    owner.run("UPDATE checkpoint SET root = ? WHERE size = 8", bytes(32))


def move_to_another_host(owner: Owner) -> None:
    """Say that another host did what one has done."""
    owner.write(6, {**owner.body(6), "host": "server2"})


def graft_another_chain(owner: Owner) -> None:
    """Put an event of one host into the chain of another, in the place of its own."""
    owner.write(6, {**owner.body(7), "host": "server1", "epoch": owner.body(5)["epoch"], "seq": 4, "event_id": new_id()})
    owner.regrow()


def flip(owner: Owner) -> None:
    """Flip one bit of an event."""
    body = bytearray(owner.run("SELECT body FROM event WHERE n = 7")[0][0])
    body[len(body) // 2] ^= 1
    owner.run("UPDATE event SET body = ? WHERE n = 7", bytes(body))


def flip_in_a_leaf(owner: Owner) -> None:
    """Flip one bit of a leaf."""
    hashed = bytearray(owner.run("SELECT hash FROM leaf WHERE n = 7")[0][0])
    hashed[9] ^= 0x10
    owner.run("UPDATE leaf SET hash = ? WHERE n = 7", bytes(hashed))


TAMPERINGS: list[tuple[Callable[[Owner], None], int]] = [
    (update, 5),
    (update_with_its_leaf, 5),
    (update_with_everything, 5),
    (update_of_a_time, 6),
    (update_of_a_column, 6),
    (delete, 6),
    (delete_with_its_leaf, 6),
    (delete_and_close_up, 5),
    (delete_the_leaves, 7),
    (truncate, 1),
    (replace, 5),
    (reorder, 5),
    (reorder_leaves, 5),
    (forge_a_row, 13),
    (forge_a_row_between, 9),
    (forge_a_checkpoint, 5),
    (forge_the_note, 8),
    (move_to_another_host, 6),
    (graft_another_chain, 6),
    (flip, 7),
    (flip_in_a_leaf, 7),
]


def test_the_log_is_whole_before(case):
    """What is tampered with below verifies as it is, with its guards, also against all that others hold of it."""
    verdict = verdict_on(case, held(case, "note", "head", "receipt"))

    assert (verdict.rows, verdict.chains, verdict.leaves, verdict.checkpoints) == (12, 2, 12, 4)
    assert verdict.fault is None
    assert verdict.unguarded == ()


@pytest.mark.parametrize(("tamper", "index"), [pytest.param(*each, id=each[0].__name__) for each in TAMPERINGS])
def test_tampering_is_named_by_its_first_bad_index(case, tamper, index):
    """What the owner of the database changed is found, at the first row that is not as it was, or can be shown to be."""
    case.owner.unguard()
    tamper(case.owner)

    fault = verdict_on(case).fault

    assert fault is not None
    assert fault.n == index, fault


def test_a_guard_that_is_gone_is_told(case):
    """Every guard that is dropped or switched off is named by its table, before anything was changed."""
    whole = verdict_on(case)
    case.owner.unguard()
    verdict = verdict_on(case)

    tables = {name.partition(" ")[0] for name in verdict.unguarded}
    assert (whole.unguarded, verdict.fault) == ((), None)
    assert tables == set(schema.metadata.tables)
    assert {"event against UPDATE", "event against DELETE"} <= set(verdict.unguarded)


def cut_the_tail(case: Case) -> None:
    """Remove the newest events and everything that tells of them."""
    case.owner.unguard()
    case.owner.run("DELETE FROM event WHERE n > 8")
    case.owner.run("DELETE FROM leaf WHERE idx >= 8")
    case.owner.run("DELETE FROM checkpoint WHERE size > 8")


def cut_everything(case: Case) -> None:
    """Empty all tables of the log."""
    case.owner.unguard()
    case.owner.empty("event", "leaf", "node", "checkpoint")


def rewrite_with_the_key(case: Case) -> None:
    """Change the newest reservation with the tree and the checkpoint over it, signed with central's own key, which was stolen."""
    case.owner.unguard()
    case.owner.write(11, {**case.owner.body(11), "scopes": ["db"]})
    case.owner.rechain(11)
    case.owner.regrow(KEY)


@pytest.mark.parametrize(
    ("tamper", "what", "index"),
    [
        (cut_the_tail, "note", 9),
        (cut_the_tail, "head", 9),
        (cut_the_tail, "receipt", 9),
        (cut_everything, "note", 1),
        (cut_everything, "head", 1),
        (cut_everything, "receipt", 1),
        (rewrite_with_the_key, "note", 9),
        (rewrite_with_the_key, "head", 12),
        (rewrite_with_the_key, "receipt", 12),
    ],
)
def test_what_could_have_been_is_told_by_what_others_hold(case, tamper, what, index):
    """A log that is whole by itself, and is not the one that there was, is told by each thing that an agent holds of it."""
    tamper(case)

    assert verdict_on(case).fault is None
    fault = verdict_on(case, held(case, what)).fault
    assert fault is not None
    assert fault.n == index, fault


def test_a_rollback_that_goes_on_is_told(databases):
    """A backup that was put back and written to since is told by a checkpoint, a head and a receipt from before."""
    database = databases.new()
    with OwnLog(database) as log:
        log.render("server1")
        log.sequence()
    backup = databases.copy(database)
    with OwnLog(database) as log:
        log.render("server1")
        log.sequence()
        note = log.rows(schema.checkpoint.c.size, schema.checkpoint.c.note)[-1].note
        leaf = bytes(log.rows(schema.leaf.c.idx, schema.leaf.c.hash)[-1].hash)
        chain = log.chains["server1"]
        head = ("server1", chain.epoch), chain.seq, chain.head
    with OwnLog(backup) as log:
        log.render("server2")
        log.render("server2")
        log.sequence()
        case = Case(databases, backup, log, Owner(databases, backup), note, head, leaf)

        assert verdict_on(case).fault is None
        told = Elsewhere()
        told.checkpoints.append(sealed(4, note, "the agent"))
        assert getattr(verdict_on(case, told).fault, "n", None) == 3
        assert getattr(verdict_on(case, held(case, "head")).fault, "n", None) == 7
        told = Elsewhere(leaves={4: (leaf, "the agent")})
        assert getattr(verdict_on(case, told).fault, "n", None) == 4


def test_a_row_that_continues_a_chain_is_told_by_its_host(databases):
    """A forged event at the end of a host's chain takes the place of its next one, which is refused, and proves the forgery."""
    with OwnLog(databases.new()) as log:
        log.render("server1")
        mine = log.make("denied", new_id())
        forged = log.make("denied", new_id(), message="forged")
        values = (3, *columns(json.loads(forged)), 0, forged)
        owner = Owner(databases, log.database)
        owner.run(f"INSERT INTO event VALUES ({', '.join('?' * 10)})", *values)
        answer = log.send(mine)
        log.sequence()
        case = Case(databases, log.database, log, owner, "", (("server1", log.chains["server1"].epoch), 3, digest(mine)), b"")
        fault = verdict_on(case, held(case, "head")).fault

    assert (answer.status, answer.reason) == (409, "chain")
    assert verdict_on(case).fault is None
    assert fault is not None
    assert fault.n == 3
