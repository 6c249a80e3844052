"""Bodies may be dropped: what goes, what must stay, and that the log goes on and proves the same. On both databases."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from prism_vault_agent.audit.event import Chain, digest, new_id
from prism_vault_agent.central.access.policy import Rule
from prism_vault_agent.central.log.drop import Doomed, Dropped, drop
from prism_vault_agent.central.log.find import find, head
from prism_vault_agent.central.log.incoming import read
from prism_vault_agent.central.log.question import Question
from prism_vault_agent.central.log.remains import Remains, remains
from prism_vault_agent.central.log.terms import term
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.tree import fetch
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import Frontier, leaf_hash, verify_inclusion
from prism_vault_agent.proof.tiles import inclusion_proof
from tests.central.own_log import EVERY, Databases, OwnLog, operator

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "canary-4f1d0c"


@pytest.fixture
def log(databases: Databases) -> Iterator[OwnLog]:
    """Return an empty log."""
    with OwnLog(databases.new()) as opened:
        yield opened


def drop_now(log: OwnLog, *numbers: int, reservations: tuple[str, ...] = (), **why: Any) -> Dropped:
    """Drop bodies as a purge does."""
    work = partial(drop, doomed=Doomed(numbers, reservations), why={"reason": "purged", **why})
    return cast("Dropped", log.store.run([work])[0])


def bodies(log: OwnLog) -> dict[int, bytes]:
    """Return each row's body."""
    return dict(map(tuple, log.rows(schema.event.c.n, schema.event.c.body)))


def test_a_dropped_body_is_empty_and_the_rest_of_its_row_stays(log):
    """Of a dropped row only the body changes; the row beside it holds the body's hash and the event that dropped it."""
    log.render()
    log.sequence()
    before = log.rows(*schema.event.columns)

    dropped = drop_now(log, 1)

    assert (dropped.n, dropped.count, dropped.leaves) == (3, 1, ((0, 0),))
    after = log.rows(*schema.event.columns)
    assert after[0] == (*before[0][:-1], b"")
    assert after[1] == before[1]
    assert log.rows(*schema.dropped.columns) == [(1, 3, bytes.fromhex(digest(before[0].body)))]


def test_every_proof_of_a_dropped_row_stays_valid(log):
    """The leaves and the tree are as before: the proof that a dropped row was in the log holds against a newer checkpoint too."""
    for _ in range(5):
        log.render()
    log.sequence()
    sent = {n: leaf_hash(leaf_data(n, at, body)) for n, at, body in log.rows(*(schema.event.c[name] for name in KEPT))}
    leaves = log.rows(*schema.leaf.columns)

    drop_now(log, *range(1, 11))
    log.render()
    log.sequence()

    assert log.rows(*schema.leaf.columns)[: len(leaves)] == leaves
    checkpoint = log.rows(*schema.checkpoint.columns)[-1]
    assert checkpoint.size == 13
    with log.readers.connect() as connection:
        for leaf in leaves:
            proof = inclusion_proof(leaf.idx, checkpoint.size, partial(fetch, connection.connection.cursor()))
            assert verify_inclusion(sent[leaf.n], leaf.idx, checkpoint.size, proof, checkpoint.root)


KEPT = ("n", "received_at", "body")


def test_the_event_that_drops_says_what_went_and_binds_what_stays(log):
    """Its fields are how many bodies, which leaves, and one hash over the columns of their rows, as a verifier computes it."""
    log.render()
    log.render()
    log.render("server2")
    log.sequence()
    drop_now(log, 1, 2, 5, by="ops", message="asked by the customer")

    event = json.loads(bodies(log)[7])
    hashes = {row.n: row.hash.hex() for row in log.rows(*schema.dropped.columns)}
    rows = [row for row in log.rows(*schema.event.columns) if row.n in hashes]
    of = [
        Remains(
            *(row.n, row.received_at, row.event_id.hex(), row.host_id, row.host_epoch.hex(), row.host_seq),
            *(row.prev_hash.hex(), row.reservation_id.hex(), row.kind, hashes[row.n]),
        )
        for row in rows
    ]

    assert (event["kind"], event["host"], event["reason"]) == ("admin", "central", "purged")
    assert (event["by"], event["message"]) == ("ops", "asked by the customer")
    assert (event["dropped"], event["leaves"]) == (3, [[0, 1], [4, 4]])
    assert event["remains"] == remains(of)
    assert remains([of[0]._replace(kind="failure"), *of[1:]]) != event["remains"]


def test_what_is_open_or_not_under_a_checkpoint_is_kept(log):
    """A row of an open reservation keeps its body, and so does one that no signed checkpoint covers; both are counted."""
    log.render(ending="")
    log.render()
    log.sequence()
    log.render()

    dropped = drop_now(log, *range(1, 6))

    assert (dropped.count, dropped.open, dropped.wait) == (2, 1, 2)
    assert [n for n, body in bodies(log).items() if not body] == [2, 3]


def test_what_central_says_about_the_log_is_never_dropped(log):
    """The event that drops others keeps its own body, however often it is asked for."""
    log.render()
    log.sequence()
    n = drop_now(log, 1, 2).n
    log.sequence()

    assert n is not None
    assert drop_now(log, n) == Dropped()
    assert bodies(log)[n]


def test_a_row_is_dropped_once(log):
    """Dropping again drops nothing and appends nothing."""
    log.render()
    log.sequence()
    drop_now(log, 1, 2)

    assert drop_now(log, 1, 2) == Dropped()
    assert len(bodies(log)) == 3


def test_every_row_of_a_reservation_goes_with_it(log):
    """A purge by reservation takes its opening, its ending and what followed, and no other reservation's rows."""
    gone = log.render()
    stays = log.render()
    log.send(log.make("cleared", gone))
    log.sequence()

    assert drop_now(log, reservations=(gone,)).count == 3
    assert [bool(body) for body in bodies(log).values()] == [False, False, True, True, False, True]
    assert {row.reservation_id.hex() for row in log.rows(*schema.event.columns)[2:4]} == {stays}


def test_nothing_later_than_a_purge_s_time_goes(log):
    """A time ``before`` spares the rows that came at or after it, also those of the same reservation."""
    first = log.render()
    log.sequence()
    times = [row.received_at for row in log.rows(schema.event.c.n, schema.event.c.received_at)]

    assert drop_now(log, reservations=(first,), before=times[0]) == Dropped()
    assert drop_now(log, reservations=(first,), before=times[1] + 1).count == 2


def test_the_terms_of_what_it_was_about_go_and_its_host_stays(log):
    """A dropped row is found no more by scope, project, run or job, nor are their hashes kept; its host, time and kind stay."""
    log.render(run_ref="run-7", job_id="job-3")
    log.sequence()
    terms = {name: term(*name) for name in (("scope", "web"), ("project", "prism"), ("run_ref", "run-7"), ("job_id", "job-3"))}
    found = {row.term for row in log.rows(*schema.term.columns)}
    drop_now(log, 1, 2)

    assert found > set(terms.values())
    left = [row for row in log.rows(schema.term.c.n, schema.term.c.term) if row.n < 3]
    assert left == [(1, term("host", "server1")), (2, term("host", "server1"))]


def test_a_chain_goes_on_behind_a_dropped_event(log):
    """A host's next event is linked to one whose body was dropped: taken after everything that was remembered is forgotten."""
    log.render()
    log.sequence()
    drop_now(log, 1, 2)
    log.store.close()

    found = head(log.readers, "server1")
    assert (found["seq"], found["hash"]) == (2, log.chains["server1"].head)
    assert log.send(log.make("reserved", new_id())).status == 201


def test_an_event_that_is_sent_again_gets_its_answer_after_its_body_was_dropped(log):
    """Replays of a dropped reservation and success are answered as at first; other bytes under the same id are refused."""
    reservation = new_id()
    sent = [log.make("reserved", reservation)]
    answers = [log.send(sent[0])]
    sent.append(log.make("success", reservation))
    answers.append(log.send(sent[1]))
    log.sequence()
    drop_now(log, 1, 2)
    fields = json.loads(sent[0])
    other = Chain("server1", fields["epoch"]).seal({**fields, "purpose": "curiosity"})

    for forget in (False, True):
        if forget:
            log.store.close()
        assert [log.send(body) for body in sent] == answers
        assert log.send(other).reason == "event_id_reused"


def test_a_denial_that_is_sent_again_stays_one(databases):
    """The replay of a reservation that policy denied is denied, also when the row that says why has no body any more."""
    with OwnLog(databases.new(), rules=[Rule("other", "lan", EVERY, EVERY, EVERY, EVERY)]) as log:
        body = log.make("reserved", new_id())
        first = log.send(body)
        log.sequence()
        assert drop_now(log, 1, 2).count == 2
        again = log.send(body)

    assert (first.status, first.reason) == (403, "project_not_allowed")
    assert (again.status, again.reason, again.n, again.hash, again.leaf) == (403, "dropped", first.n, first.hash, first.leaf)


def test_a_release_is_taken_back_after_its_rows_were_dropped(log):
    """A success whose body is gone can still be cleared by its host, and by no other."""
    reservation = log.render()
    log.sequence()
    drop_now(log, 1, 2)
    log.store.close()

    assert log.send(log.make("cleared", reservation, "server2"), "server2").reason == "other_host"
    assert log.send(log.make("cleared", reservation)).status == 200


def test_two_replicas_that_drop_the_same_drop_it_once(databases):
    """The second of two stores that drop the same rows finds nothing left to do, and both go on appending."""
    with OwnLog(databases.new()) as log, OwnLog(log.database) as other:
        other.render("server2")
        log.render()
        log.sequence()
        assert drop_now(log, 1, 2, 3, 4).count == 4
        assert drop_now(other, 1, 2, 3, 4) == Dropped()
        other.render("server2")
        log.render()

        assert len(log.rows(schema.dropped.c.n)) == 4


def test_readers_are_shown_that_a_body_was_dropped(log):
    """A page has the row with an empty body, the hash that it had, and the index of the event that dropped it."""
    log.render()
    log.sequence()
    hashes = [event["hash"] for event in find(log.readers, operator("*"), Question()).events]
    drop_now(log, 1)
    shown = find(log.readers, operator("*"), Question()).events

    assert [(event["body"] == "", event["dropped_by"]) for event in shown] == [(True, 3), (False, None), (False, None)]
    assert [event["hash"] for event in shown[:2]] == hashes


def test_the_file_keeps_nothing_of_a_dropped_body(tmp_path):
    """On SQLite the bytes of a dropped body are overwritten: no file of the database holds them once it is closed."""
    databases = Databases(tmp_path, None)
    with OwnLog(databases.new()) as log:
        for _ in range(20):
            log.render(run_ref=CANARY)
        log.sequence()
        found = files_with(CANARY, Path(log.database).parent)
        drop_now(log, *range(1, 41))

    assert found
    assert files_with(CANARY, Path(log.database).parent) == []
    with OwnLog(log.database) as again:
        assert read(bodies(again)[41]).fields["dropped"] == 40


def files_with(text: str, directory: Path) -> list[str]:
    """Return the names of files that hold the text."""
    return [path.name for path in directory.iterdir() if text.encode() in path.read_bytes()]


def test_the_tree_is_the_same_with_and_without_bodies(log):
    """A sequencer that starts anew after a drop grows the same tree: nothing of it is computed from bodies again."""
    log.render()
    log.sequence()
    drop_now(log, 1, 2)
    log.tree = type(log.tree)(Frontier())
    log.render()
    log.sequence()
    tree = Frontier()
    tree.extend([leaf.hash for leaf in log.rows(*schema.leaf.columns)])

    assert log.rows(*schema.checkpoint.columns)[-1].root == tree.root()
    assert log.tree.frontier.size == 5
