"""One installation of an agent at a time releases in a host's name: who has it, who is refused, and when another is let in."""

from __future__ import annotations

import contextlib
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit.event import NAME_HELD, SUPERSEDED, new_id
from prism_vault_agent.central.log import holding
from prism_vault_agent.central.log.holding import Sender
from tests.central.host import Host
from tests.central.own_log import OwnLog
from tests.support.central import CentralProcess
from tests.support.stream import Following
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prism_vault_agent.central.log.transaction import Transaction
    from tests.central.own_log import Databases

ONE, OTHER = secrets.token_hex(16), secrets.token_hex(16)
LONG_AGO = holding.ALIVE_MS + 1_000


class Installed(Host):
    """A start of an installation of a host's agent: what it reserves names that."""

    def __init__(self, central: CentralProcess, name: str, installation: str = "") -> None:
        super().__init__(central, name)
        self.central = central
        self.more = {"installation": installation} if installation else {}
        self.sender = Sender(name, self.chain.epoch, installation)

    def asks(self, **more: Any) -> str:
        """Reserve; return why that was refused, nothing where it was not."""
        answer = self.send(self.make("reserved", **self.more, **more))
        assert answer.status_code in (201, 409), answer.text
        assert answer.json()["appended"] is (answer.status_code == 201)
        return str(answer.json().get("reason", ""))

    def follows(self) -> Following:
        """Follow the signals as this start."""
        return Following(self.central, self.central.agent_tokens[self.sender.host], sender=self.sender)


def standing(stream: Following) -> str:
    """Return what a stream said last of its agent's name."""
    found = wait_until(lambda: [event for event in stream.events if event.kind == "name"], 30)
    return str(found[-1].data.get("reason", ""))


class Site:
    """A central, or two on one PostgreSQL, and the name of a host that nobody else speaks for in each test."""

    def __init__(self, replicas: tuple[CentralProcess, CentralProcess]) -> None:
        self.one, self.two = replicas
        self.name = self.one.name()

    def starts(self, *installations: str) -> list[Installed]:
        """Return starts of these installations, by turns at one replica and at the other."""
        return [Installed((self.one, self.two)[at % 2], self.name, each) for at, each in enumerate(installations)]

    def told(self) -> list[str]:
        """Return what central's own rows say of this host."""
        events = [event["fields"] for event in self.one.events(kind="admin", host=self.name)]
        return [row["message"] for row in events if row["reason"] == "refused"]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def replicas(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[CentralProcess, CentralProcess]]:
    """One central on SQLite, and two on one PostgreSQL."""
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            only = stack.enter_context(CentralProcess(tmp_path_factory.mktemp("only")))
            yield only, only
        else:
            server = request.getfixturevalue("postgres").fresh()
            one = stack.enter_context(CentralProcess(tmp_path_factory.mktemp("one"), server=server))
            yield one, stack.enter_context(one.replica(tmp_path_factory.mktemp("two")))


@pytest.fixture
def site(replicas) -> Site:
    """Both replicas, for a host of this test's own."""
    return Site(replicas)


def test_f98_a_second_installation_is_refused_and_that_is_told(site):
    """Who comes second releases nothing, and the log and the metrics say so: once a minute, and each time."""
    first, second = site.starts(ONE, OTHER)
    with site.two.client() as client:
        before = client.get("/metrics").text
        assert first.asks() == ""
        assert (second.asks(), second.asks()) == (NAME_HELD, NAME_HELD)
        assert first.asks() == ""
        after = client.get("/metrics").text
    (told,) = site.told()

    assert f"installation {OTHER[:8]}" in told and site.name in told and NAME_HELD in told
    assert refused(after) - refused(before) == 2
    assert [event["kind"] for event in site.one.events(host=site.name)] == ["reserved", "admin", "reserved"]


def test_f98_a_start_that_has_lost_the_name_releases_nothing_that_it_had_reserved(site):
    """A success of a start that has lost the name since its reservation is refused; the failure that ends it is taken."""
    before, after = site.starts(ONE, ONE)
    assert after.asks() == ""
    reservation = after.reserve(**after.more)
    assert before.asks() == ""
    wait_until(lambda: after.asks() == SUPERSEDED)  # its replica may believe in it for two seconds more
    refusal = after.end("success", reservation, names=["A"], leases=[])
    assert (refusal.status_code, refusal.json()["reason"], refusal.json()["appended"]) == (409, SUPERSEDED, False)
    assert after.end("failure", reservation).status_code == 200


def test_f98_what_ends_or_tells_is_taken_from_anybody(site):
    """Who may not release may still tell what it denied, what has failed, and what is no longer out there."""
    first, second = site.starts(ONE, OTHER)
    reservation = first.reserve(**first.more)
    assert first.end("success", reservation, names=["A"], leases=[]).status_code == 200
    assert second.asks() == NAME_HELD
    assert second.send(second.make("denied")).status_code == 201
    assert second.clear(reservation)["status"] == 200


def test_a_later_start_of_the_same_installation_is_never_refused(site):
    """A start takes the name over though the stream of the one before is still open; that one is told, and has lost it."""
    before, after, last = site.starts(ONE, ONE, ONE)
    with before.follows() as stream:
        assert standing(stream) == ""
        assert before.asks() == ""
        assert after.asks() == ""
        wait_until(lambda: standing(stream) == SUPERSEDED, 30)
        assert (before.asks(), after.asks()) == (SUPERSEDED, "")
        assert last.asks() == ""
        wait_until(lambda: after.asks() == SUPERSEDED)
        assert (before.asks(), last.asks()) == (SUPERSEDED, "")


def test_f98_a_stream_keeps_the_name_until_it_is_closed(site):
    """Who only follows the signals has the name; the second follows too, and is told when the name is its own."""
    first, second = site.starts(ONE, OTHER)
    with contextlib.ExitStack() as closing:
        one = closing.enter_context(first.follows())
        assert standing(one) == ""
        other = closing.enter_context(second.follows())
        assert standing(other) == NAME_HELD
        assert second.asks() == NAME_HELD
        assert len(site.told()) == 1
        closing.pop_all()
        one.close()
        wait_until(lambda: standing(other) == "", 30)
        assert (second.asks(), first.asks()) == ("", NAME_HELD)
        other.close()


def test_an_agent_that_names_no_installation_is_one_with_the_others_that_name_none(site):
    """Those are taken as one while no installation has the name, and refused while one has it."""
    old, new, older = site.starts("", ONE, "")
    assert (old.asks(), older.asks(), old.asks()) == ("", "", "")
    assert new.asks() == ""
    wait_until(lambda: old.asks() == NAME_HELD)
    assert (older.asks(), new.asks()) == (NAME_HELD, "")


def test_a_release_without_an_agent_has_no_name_and_disturbs_none(site):
    """``exec --direct`` releases beside the agent of its own installation, not beside another one, and never takes a name."""
    elsewhere, agent, beside = site.starts(OTHER, ONE, ONE)
    assert elsewhere.asks(mode="direct") == ""
    assert agent.asks() == ""
    wait_until(lambda: elsewhere.asks(mode="direct") == NAME_HELD)
    assert (beside.asks(mode="direct"), agent.asks()) == ("", "")


def test_a_free_name_is_given_once(site):
    """Of installations that come at one moment, at different replicas, exactly one has the name."""
    with contextlib.ExitStack() as closing:
        starts = site.starts(*(secrets.token_hex(16) for _ in range(6)))
        streams = [closing.enter_context(each.follows()) for each in starts]
        assert sorted(standing(stream) for stream in streams) == ["", *[NAME_HELD] * 5]


def test_a_central_that_starts_anew_refuses_who_was_refused(site):
    """Who had the name has it after a restart of central too, though it comes back after the other one."""
    first, second = site.starts(ONE, OTHER)
    with first.follows() as stream:
        assert standing(stream) == ""
        site.one.restart()
    second.client.base_url = site.two.url
    assert second.asks() == NAME_HELD
    with first.follows() as stream:
        assert standing(stream) == ""


def test_who_was_not_heard_of_is_gone_only_for_one_that_could_have_heard(databases: Databases):
    """A holder whose time is up keeps its name at a central that has just started or whose clock was set, and loses it later."""
    first, second = (Sender("server1", new_id(), each) for each in (ONE, OTHER))
    answers: list[str] = []

    def work(transaction: Transaction, sender: Sender, later: int, *, settled: bool) -> None:
        transaction.now += later
        transaction.settled = settled
        refusal = holding.take(transaction, sender)
        answers.append(refusal.reason if refusal else "")

    with OwnLog(databases.new()) as log:
        for sender, later, settled in (
            (first, 0, True),
            (second, 0, True),
            (second, holding.ALIVE_MS - 1_000, True),
            (second, LONG_AGO, False),
            (second, LONG_AGO, True),
            (first, 0, True),
        ):
            log.store.run([partial(work, sender=sender, later=later, settled=settled)])
    assert answers == ["", NAME_HELD, NAME_HELD, NAME_HELD, "", NAME_HELD]


def test_a_clock_that_was_set_is_believed_when_it_has_gone_on_for_a_while(monkeypatch):
    """After a start, and after a jump of the wall clock, 45 seconds of CLOCK_MONOTONIC pass until somebody can be gone."""
    passed, jumped = 0, 0
    monkeypatch.setattr(time, "monotonic_ns", lambda: passed)
    monkeypatch.setattr(time, "time_ns", lambda: 10**18 + passed + jumped)
    settled = holding.Settled()
    assert not settled()
    passed += holding.ALIVE_MS * 1_000_000
    assert settled()
    jumped += 3_600_000_000_000
    assert not settled()
    passed += holding.ALIVE_MS * 1_000_000
    assert settled()


def test_what_a_replica_believes_ends_before_another_gives_the_name_away():
    """A replica that still believes in a holder can never do so when another one has let somebody else in."""
    assert holding.BELIEVED_MS < holding.LEFT_MS < holding.WORTH_RENEWING_MS < holding.ALIVE_MS


def refused(metrics: str) -> float:
    """Return how many were refused by what the metrics say."""
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("prism_vault_central_names_refused"))
