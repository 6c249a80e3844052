"""Properties of the one verb: whatever is sent in whatever order, each reservation ends once and the log verifies."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism_vault_agent.audit.event import Chain, new_id
from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.access.policy import Policies, Policy, Rule
from prism_vault_agent.central.log.append import abandon, append
from prism_vault_agent.central.log.incoming import read
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.storage.engines import migrate, writing_engine
from tests.central.host import fields
from tests.support.soak import count
from tests.support.stored import stored, verdict_of

EVERY = frozenset({"*"})
POLICIES = Policies(0, (Policy("config:1", 0, Rule("prism", "lan", frozenset({"web"}), EVERY, EVERY, frozenset({"service"}))),))
HOSTS = ("server1", "server2")

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["reserved", "curious", "success", "failure", "denied", "cleared", "abandon", "again", "forget", "gap", "forge"]
        ),
        st.integers(0, 1),
        st.integers(0, 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated database without rows."""
    path = tmp_path_factory.mktemp("empty") / "db" / "audit.db"
    migrate(str(path))
    return path


class World:
    """Two hosts, a few reservation ids, and a store over a database of its own."""

    def __init__(self, database: Path) -> None:
        self.store = Store(writing_engine(str(database)))
        self.chains = [Chain(name, new_id()) for name in HOSTS]
        self.reservations = [new_id() for _ in range(4)]
        self.sent: list[tuple[int, bytes, Any]] = []

    def step(self, what: str, host: int, reservation: int) -> None:
        """Do one step, and check what must hold of its answer."""
        if what == "forget":
            self.store.close()
        elif what == "abandon":
            self.store.run([partial(abandon, reservations=[self.reservations[reservation]])])
        elif what == "again":
            if self.sent:
                sender, body, first = self.sent[reservation % len(self.sent)]
                again = self.send(sender, body)
                assert (again.status, again.n, again.hash, again.reason) == (first.status, first.n, first.hash, first.reason)
        else:
            self.fresh(what, host, self.reservations[reservation])

    def fresh(self, what: str, host: int, reservation: str) -> None:
        """Send a new event of a host's chain."""
        kind = {"curious": "reserved", "gap": "reserved", "forge": "reserved"}.get(what, what)
        chain = self.chains[host]
        more = {"purpose": "curiosity"} if what == "curious" else {}
        body = chain.seal(fields(kind, reservation, **more))
        if what == "gap":
            ahead = Chain(chain.host, chain.epoch, chain.seq + 1, chain.head)
            assert self.send(host, ahead.seal(fields(kind, reservation))).reason == "chain"
            return
        if what == "forge":
            assert self.send(1 - host, body).reason == "host_mismatch"
            return
        answer = self.send(host, body)
        assert answer.status in ((200, 201, 403, 409) if answer.appended or answer.status in (403, 409) else ())
        if answer.appended:
            chain.accept(body)
            self.sent.append((host, body, answer))

    def send(self, host: int, body: bytes) -> Any:
        """Append one event as the agent of ``host``."""
        identity = Identity(HOSTS[host], "agent", HOSTS[host], EVERY)
        results: list[Any] = self.store.run([partial(append, identity=identity, policies=POLICIES, events=[read(body)])])
        return results[0][0]


@settings(max_examples=count(60, 2000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_each_reservation_ends_at_most_once_and_the_log_verifies(empty, steps):
    """Reserve, finalize, abandon, clear, replay, forge and gap in any order: one ending each, every replay equal, a whole log."""
    with tempfile.TemporaryDirectory() as directory:
        database = Path(directory) / "audit.db"
        shutil.copy(empty, database)
        world = World(database)
        with contextlib.closing(world.store):
            for what, host, reservation, _ in steps:
                world.step(what, host, reservation)
            for reservation in world.reservations:
                world.store.run([partial(abandon, reservations=[reservation])])
        rows, fault = stored(database), verdict_of(database).fault

    assert fault is None
    for reservation in world.reservations:
        kinds = [row.kind for row in rows if row.reservation == reservation]
        endings = [kind for kind in kinds if kind in ("success", "failure", "denied", "abandoned")]
        assert kinds.count("reserved") <= 1
        assert len(endings) == (1 if kinds else 0)
        assert "cleared" not in kinds or "success" in kinds
        assert not kinds or kinds[0] in ("reserved", "denied")


@settings(max_examples=count(40, 500), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_a_group_is_as_good_as_one_by_one(empty, steps):
    """Events of several callers in one transaction get the answers that they get one after the other."""
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / name for name in ("one.db", "group.db")]
        for path in paths:
            shutil.copy(empty, path)
        alone = World(paths[0])
        with contextlib.closing(alone.store):
            works = []
            for what, host, reservation, _ in steps:
                kind = what if what in ("reserved", "success", "failure", "cleared") else "denied"
                chain = alone.chains[host]
                body = chain.seal(fields(kind, alone.reservations[reservation]))
                answer = alone.send(host, body)
                if answer.appended:
                    chain.accept(body)
                identity = Identity(HOSTS[host], "agent", HOSTS[host], EVERY)
                works.append((partial(append, identity=identity, policies=POLICIES, events=[read(body)]), answer))
        with contextlib.closing(Store(writing_engine(str(paths[1])))) as together:
            answers = together.run([work for work, _ in works])

    # A leaf holds the time of arrival, which differs.
    grouped = [replace(answer[0], leaf="", received_at=0) for answer in answers]  # type: ignore[index]
    assert grouped == [replace(answer, leaf="", received_at=0) for _, answer in works]


def test_the_fields_of_central_s_rows_are_an_event(empty, tmp_path):
    """A row that central makes passes the same checks as an agent's, and carries what its reservation is about."""
    database = tmp_path / "audit.db"
    shutil.copy(empty, database)
    world = World(database)
    with contextlib.closing(world.store):
        world.fresh("curious", 0, world.reservations[0])
    denied = stored(database)[-1]
    made = json.loads(read(denied.body).body)

    assert (made["host"], made["about_host"], made["project"], made["scopes"]) == ("central", "server1", "prism", ["web"])
