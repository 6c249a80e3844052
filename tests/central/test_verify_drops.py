"""Verification of a log whose bodies were dropped: it holds exactly where events of the log dropped them. On both databases."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pytest

from prism_vault_agent.audit.event import canonical
from prism_vault_agent.central.log.drop import Doomed, drop
from prism_vault_agent.central.verification.databases import open_database
from prism_vault_agent.central.verification.verify import verify
from tests.central.own_log import KEY, OwnLog
from tests.central.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prism_vault_agent.central.verification.verify import Verdict
    from tests.central.own_log import Databases

# 1, 2 and 3, 4: reservations of server1 and server2, of which 1, 2 and 4 were dropped by 7. 5, 6: another of server1.


class Dropped(NamedTuple):
    """A log, who owns its database, and what was in row 2."""

    log: OwnLog
    owner: Owner
    body: bytes

    def verdict(self) -> Verdict:
        """Verify."""
        with open_database(self.log.database) as opened:
            return verify(opened, keys=[KEY.verifying_key])


@pytest.fixture
def dropped(databases: Databases) -> Iterator[Dropped]:
    """Return a log without three of its bodies."""
    with OwnLog(databases.new()) as log:
        log.render("server1")
        log.render("server2")
        log.render("server1")
        log.sequence()
        owner = Owner(databases, log.database)
        body = canonical(owner.body(2))
        log.store.run([partial(drop, doomed=Doomed((1, 2, 4)), why={"reason": "purged"})])
        log.sequence()
        yield Dropped(log, owner, body)


def test_dropped_bodies_are_no_fault(dropped):
    """Chains, leaves and checkpoints hold across rows whose bodies are gone, and how many those are is told."""
    verdict = dropped.verdict()

    assert (verdict.rows, verdict.chains, verdict.leaves, verdict.dropped, verdict.fault) == (7, 3, 7, 3, None)


def a_column(owner: Owner, _body: bytes) -> None:
    """Change a column of a row that has no body."""
    owner.run("UPDATE event SET kind = 'failure' WHERE n = 2")


def a_time(owner: Owner, _body: bytes) -> None:
    """Change when a row without a body came."""
    owner.run("UPDATE event SET received_at = received_at + 1 WHERE n = 2")


def a_hash(owner: Owner, _body: bytes) -> None:
    """Change what the hash of a body was that is gone, and of which no later event tells."""
    owner.run("UPDATE dropped SET hash = ? WHERE n = 4", bytes(32))


def one_more(owner: Owner, _body: bytes) -> None:
    """Empty another body, and say that the same event dropped it."""
    owner.run("INSERT INTO dropped SELECT n, 7, ? FROM event WHERE n = 5", bytes(32))
    owner.run("UPDATE event SET body = ? WHERE n = 5", b"")


def unsaid(owner: Owner, _body: bytes) -> None:
    """Empty another body, and say nothing."""
    owner.run("UPDATE event SET body = ? WHERE n = 6", b"")


def by_no_drop(owner: Owner, _body: bytes) -> None:
    """Empty another body, and say that an event dropped it that drops nothing."""
    owner.run("INSERT INTO dropped SELECT n, 6, ? FROM event WHERE n = 5", bytes(32))
    owner.run("UPDATE event SET body = ? WHERE n = 5", b"")


def forgotten(owner: Owner, _body: bytes) -> None:
    """Forget that a body was dropped."""
    owner.run("DELETE FROM dropped WHERE n = 2")


def put_back(owner: Owner, body: bytes) -> None:
    """Put a body back."""
    owner.run("UPDATE event SET body = ? WHERE n = 2", body)


def put_back_in_silence(owner: Owner, body: bytes) -> None:
    """Put a body back, and forget that it was dropped."""
    owner.run("UPDATE event SET body = ? WHERE n = 2", body)
    owner.run("DELETE FROM dropped WHERE n = 2")


@pytest.mark.parametrize(
    ("tamper", "index"),
    [
        (a_column, 1),
        (a_time, 1),
        (a_hash, 1),
        (one_more, 5),
        (unsaid, 6),
        (by_no_drop, 5),
        (forgotten, 2),
        (put_back, 2),
        (put_back_in_silence, 1),
    ],
)
def test_what_remains_is_as_the_event_says_that_dropped(dropped, tamper: Callable[[Owner, bytes], None], index: int):
    """A row without its body that was changed, one more or one less is told: exactly, or as one of those of the same event."""
    dropped.owner.unguard()
    tamper(dropped.owner, dropped.body)
    fault = dropped.verdict().fault

    assert fault is not None
    assert fault.n == index, fault
