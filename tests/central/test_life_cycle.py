"""The life of reservations by a pure model: SQLite, and two replicas on one PostgreSQL, give the answers that it says."""

from __future__ import annotations

import contextlib
import itertools
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from prism_vault_agent.audit.event import Chain, new_id
from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.access.policy import Policies, Policy, Rule
from prism_vault_agent.central.log.append import abandon, append
from prism_vault_agent.central.log.incoming import read
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.storage.engines import writing_engine
from tests.central.host import fields
from tests.central.own_log import EVERY
from tests.support.soak import count

if TYPE_CHECKING:
    from prism_vault_agent.central.log.answer import Answer

RULE = Rule("prism", "lan", frozenset({"web"}), EVERY, EVERY, frozenset({"service"}))
POLICIES = Policies(0, (Policy("test", 0, RULE),))
NUMBERS = itertools.count()
HOSTS, RESERVATIONS, REPLICAS = st.integers(0, 1), st.integers(0, 2), st.integers(0, 1)
Told = tuple[int, str]


class Model:
    """What a reservation's rows are, and so what the next event of it is answered with."""

    def __init__(self) -> None:
        self.owner: int | None = None
        self.opened = False
        self.ended = ""

    def answer(self, kind: str, host: int, purpose: str) -> Told:
        """Return status and reason of the answer to an event, and take the event where it is appended."""
        if kind == "reserved":
            return self._reserve(host, purpose)
        if kind == "cleared":
            return self._follow(host) if self.ended == "success" else (409, "not_released")
        if self.ended:
            return 409, "reservation_ended"
        if not self.opened:
            if kind != "denied":
                return 409, "no_reservation"
            self.ended, self.owner = kind, host
            return 201, ""
        told = self._follow(host)
        if told == (200, ""):
            self.ended = kind
        return told

    def _reserve(self, host: int, purpose: str) -> Told:
        if self.opened or self.ended:
            return 409, "reservation_exists"
        self.opened, self.owner = True, host
        if purpose == "service":
            return 201, ""
        self.ended = "denied"
        return 403, "purpose_not_allowed"

    def _follow(self, host: int) -> Told:
        return (200, "") if host == self.owner else (403, "other_host")


class LifeCycle(RuleBasedStateMachine):
    """Sends the same events to every log, through either replica of the one that has two."""

    def __init__(self, logs: list[list[Store]]) -> None:
        super().__init__()
        self.logs = logs
        self.sent: list[tuple[int, bytes, list[Answer]]] = []

    @initialize()
    def begin(self) -> None:
        """Begin with hosts and reservations that nobody knows."""
        names = [f"server{next(NUMBERS)}" for _ in range(2)]
        self.chains = [Chain(name, new_id()) for name in names]
        self.reservations = [new_id() for _ in range(3)]
        self.models = [Model() for _ in self.reservations]

    @rule(
        kind=st.sampled_from(["reserved", "success", "failure", "denied", "cleared"]),
        host=HOSTS,
        of=RESERVATIONS,
        purpose=st.sampled_from(["service", "service", "curiosity"]),
        replica=REPLICAS,
    )
    def send(self, kind: str, host: int, of: int, purpose: str, replica: int) -> None:
        """Send a host's next event: all logs answer as the model does, and alike."""
        chain = self.chains[host]
        more = {"purpose": purpose} if kind == "reserved" else {}
        body = chain.seal(fields(kind, self.reservations[of], **more))
        ended = self.models[of].ended
        expected = self.models[of].answer(kind, host, purpose)
        answers = [self._append(stores, replica, host, body) for stores in self.logs]

        for answer in answers:
            assert (answer.status, answer.reason) == expected
            assert answer.ended_by == (ended if expected[1] == "reservation_ended" else "")
        if answers[0].appended:
            chain.accept(body)
            self.sent.append((host, body, answers))

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 99), replica=REPLICAS)
    def send_again(self, which: int, replica: int) -> None:
        """Send an event again: each log gives its first answer, whichever replica is asked."""
        host, body, first = self.sent[which % len(self.sent)]
        answers = [self._append(stores, replica, host, body) for stores in self.logs]

        assert [(each.status, each.n, each.hash, each.leaf, each.reason) for each in answers] == [
            (each.status, each.n, each.hash, each.leaf, each.reason) for each in first
        ]

    @rule(host=HOSTS, of=RESERVATIONS, replica=REPLICAS)
    def skip_one(self, host: int, of: int, replica: int) -> None:
        """Send an event that leaves one out: each log says where the chain stands."""
        chain = self.chains[host]
        ahead = Chain(chain.host, chain.epoch, chain.seq + 1, chain.head)
        body = ahead.seal(fields("denied", self.reservations[of]))
        for stores in self.logs:
            answer = self._append(stores, replica, host, body)
            assert (answer.reason, answer.head) == ("chain", (chain.seq, chain.head))

    @rule(of=RESERVATIONS, replica=REPLICAS)
    def abandon(self, of: int, replica: int) -> None:
        """End what is open for too long: each log ends it, once."""
        model = self.models[of]
        still_open = model.opened and not model.ended
        for stores in self.logs:
            (ended,) = stores[replica % len(stores)].run([partial(abandon, reservations=[self.reservations[of]])])
            assert ended == int(still_open)
        if still_open:
            model.ended = "abandoned"

    @rule(replica=REPLICAS)
    def forget(self, replica: int) -> None:
        """Start a replica anew: it remembers nothing."""
        for stores in self.logs:
            stores[replica % len(stores)].close()

    def _append(self, stores: list[Store], replica: int, host: int, body: bytes) -> Answer:
        name = self.chains[host].host
        work = partial(append, identity=Identity(name, "agent", name, EVERY), policies=POLICIES, events=[read(body)])
        results: list[Any] = stores[replica % len(stores)].run([work])
        return cast("Answer", results[0][0])


@pytest.mark.tool("initdb")
@pytest.mark.timeout(3600)
def test_both_databases_and_all_replicas_answer_as_the_model_does(sqlite_databases, postgresql_databases):
    """Whatever is sent, sent again, skipped, abandoned or forgotten in whatever order: one model, three stores, equal answers."""
    file, server = sqlite_databases.new(), postgresql_databases.new()
    with contextlib.ExitStack() as stack:
        logs = [[Store(writing_engine(file))], [Store(writing_engine(server)) for _ in range(2)]]
        for store in itertools.chain(*logs):
            stack.callback(store.close)

        class OnTheseLogs(LifeCycle):
            def __init__(self) -> None:
                super().__init__(logs)

        run_state_machine_as_test(
            OnTheseLogs, settings=settings(max_examples=count(4, 2000), stateful_step_count=20, deadline=None)
        )
