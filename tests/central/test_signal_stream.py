"""The stream of signals: who follows is told everything that concerns it, once, in order, from any replica of both databases."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.log.signals import CHANNEL, signal
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.storage.engines import writing_engine
from prism_vault_agent.central.storage.listen import NAME
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.stream import Following
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prism_vault_agent.central.log.transaction import Transaction

HOSTS = {"server1": ["prism"], "server2": ["prism", "other"], "stranger": ["other"], "all": ["*"]}
OPERATORS = {"prism-ops": ["prism"]}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def central(request, tmp_path_factory) -> Iterator[CentralProcess]:
    """Return a central on each kind of database."""
    server = request.getfixturevalue("server") if request.param == "postgresql" else None
    directory = tmp_path_factory.mktemp(request.param)
    with CentralProcess(directory, agents=HOSTS, operators=OPERATORS, server=server) as running:
        yield running


@pytest.fixture(scope="module")
def other(central, tmp_path_factory) -> Iterator[CentralProcess]:
    """Return a second replica of a central on PostgreSQL."""
    key = {"log": {"key_file": str(central.key_file)}}
    with CentralProcess(tmp_path_factory.mktemp("other"), agents=HOSTS, more={**key, **_same(central)}) as running:
        yield running


def _same(central: CentralProcess) -> dict[str, str]:
    return {name: central.setting(name) for name in ("database", "database_owner")}


def order(central: CentralProcess, what: str = "rotations", token: str | None = None, **asked: Any) -> int:
    """Order a rotation of scope web, unless told otherwise, and return the id of its signal."""
    with central.client(token) as client:
        answer = client.post(f"/v1/{what}", json={"id": new_id(), **(asked or {"scope": "web"})})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def test_who_follows_is_told(central):
    """A rotation and a revocation reach who follows with id, kind, target, who, and where they are on the log."""
    with Following(central, central.agent_tokens["server1"]) as following:
        first = order(central, scope="web", reason="key leaked")
        second = order(central, "revocations", host="server1", emergency=True)
        rotation, revocation = following.wait_for(2)
    rows = {event["n"]: event["fields"] for event in central.events(kind="admin")}

    assert following.answer.getheader("content-type") == "text/event-stream"
    assert [rotation.id, revocation.id] == [first, second]
    assert (rotation.kind, rotation.data["target"]) == ("rotation", {"scope": "web"})
    assert (rotation.data["by"], rotation.data["why"]) == ("test-operator", "key leaked")
    assert (revocation.kind, revocation.data["target"], revocation.data["emergency"]) == ("revocation", {"host": "server1"}, True)
    assert rows[rotation.data["n"]]["message"] == "rotation of scope web, by test-operator: key leaked"


def test_nothing_is_missed(central):
    """Whoever comes again with its last id, as header or query, is told all that it has not seen, once, in order."""
    with Following(central) as before:
        start = before.position
        assert start is not None
    with contextlib.closing(Store(writing_engine(central.setting("database")))) as store:
        for _ in range(5):
            store.run([partial(_several, count=50)])
    expected = list(range(start + 1, start + 251))
    for options in ({"last": start}, {"query": f"?after={start}"}):
        with Following(central, **options) as following:
            following.wait_for(250)
        assert following.ids == expected
    with Following(central, last=start + 200) as later:
        later.wait_for(50)
    assert later.ids == expected[200:]


def test_nothing_is_missed_over_a_restart(central):
    """A central that has just started tells from the rows what it has never seen itself."""
    with Following(central) as before:
        start = before.position
    orders = [order(central) for _ in range(3)]
    central.restart()
    with Following(central, last=start) as following:
        following.wait_for(3)
        orders.append(order(central))
        following.wait_for(4)

    assert following.ids == orders


def test_what_another_process_writes_is_told(central):
    """A signal that was written past this process, as by a command on the database, reaches who follows."""
    with Following(central) as following, contextlib.closing(Store(writing_engine(central.setting("database")))) as store:
        store.run([partial(_several, count=2)])
        told = following.wait_for(2)

    assert [event.data["target"] for event in told] == [{"scope": "s0"}, {"scope": "s1"}]


def test_without_a_position_one_begins_now(central):
    """Who has no last id is told where the stream is, and what comes from then on."""
    last = order(central)
    with Following(central) as following:
        begun = following.position
        order(central)
        following.wait_for(1)

    assert begun == last
    assert following.ids == [last + 1]


def test_a_new_agent_is_told_since_its_first_row(central):
    """An agent without a last id names its start: it is told all since the first row of that start, whenever it comes."""
    order(central)
    host = Host(central, "server1")
    with Following(central, central.agent_tokens["server1"], query=f"?epoch={host.chain.epoch}") as unknown:
        now = unknown.position
        assert unknown.ids == []
    host.reserve()
    since = [order(central) for _ in range(2)]
    with Following(central, central.agent_tokens["server1"], query=f"?epoch={host.chain.epoch}") as known:
        wait_until(partial(_saw, known, since[-1]))  # one from just before may be told too

    assert now == since[0] - 1
    assert known.ids[-2:] == since


@pytest.mark.parametrize(
    ("asked", "sees"),
    [
        ({"everything": True}, {"server1", "server2", "stranger", "all"}),
        ({"scope": "web"}, {"server1", "server2", "stranger", "all"}),
        ({"everything": True, "project": "prism"}, {"server1", "server2", "all"}),
        ({"run_ref": "r1", "project": "other"}, {"server2", "stranger", "all"}),
        ({"host": "server2"}, {"server2"}),
        ({"host": "stranger", "project": "prism"}, set()),
    ],
)
def test_a_host_sees_what_concerns_it(central, asked, sees):
    """A host is told of signals of its projects, and of none for another host; everything reaches all."""
    with contextlib.ExitStack() as stack:
        following = {name: stack.enter_context(Following(central, token)) for name, token in central.agent_tokens.items()}
        operator = stack.enter_context(Following(central))
        number = order(central, "revocations", **asked)
        marker = order(central, everything=True)
        for each in (*following.values(), operator):
            wait_until(partial(_saw, each, marker))
        seen = {name for name, each in following.items() if number in each.ids}

    assert seen == sees
    assert number in operator.ids


def test_an_operator_of_one_project_orders_and_sees_that_one(central):
    """An operator's order is within its projects; it is not told of another's."""
    token = central.operator_tokens["prism-ops"]
    with Following(central, token) as narrow, Following(central, central.agent_tokens["stranger"]) as stranger:
        order(central, scope="web", project="other")
        mine = order(central, token=token, everything=True)
        marker = order(central, everything=True)
        wait_until(lambda: marker in narrow.ids and marker in stranger.ids)

    assert narrow.ids == [mine, marker]
    assert mine not in stranger.ids
    assert narrow.events[0].data["projects"] == ["prism"]


@pytest.mark.parametrize("query", ["?after=-1", "?after=x", "?after=1e9", "?epoch=12", "?more=1", "?after=" + "9" * 30])
def test_a_wrong_question_is_refused(central, query):
    """What is no id and no epoch gets 400 with a code, and no stream."""
    with central.client() as client:
        answer = client.get(f"/v1/signals{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, "query")


def test_a_position_that_does_not_exist_is_refused(central):
    """Who has seen more than there is learns that this is another log, or an older one: 409, and where the log is."""
    last = order(central)
    with central.client() as client:
        answer = client.get("/v1/signals", headers={"Last-Event-ID": str(last + 1)})

    assert (answer.status_code, answer.json()["code"], answer.json()["last"]) == (409, "ahead", last)


def test_a_drain_ends_streams_cleanly(central):
    """At SIGTERM every stream gets its end, so that its reader knows that nothing was cut off, and central ends with 0."""
    with Following(central) as one, Following(central, central.agent_tokens["all"]) as two:
        assert central.stop() == 0
        wait_until(lambda: one.end and two.end)
    central.start()

    assert (one.end, two.end) == ("ended", "ended")


@pytest.mark.parametrize("central", ["postgresql"], indirect=True)
def test_another_replica_tells_it_too(central, other):
    """With two replicas, whoever orders at one is heard by who follows the other; positions are the same at both."""
    with Following(central) as here, Following(other, other.operator_token) as there:
        numbers = [order(central), order(other), order(central)]
        here.wait_for(3)
        there.wait_for(3)
    with Following(other, other.operator_token, last=numbers[0]) as again:
        again.wait_for(2)

    assert here.ids == there.ids == numbers
    assert again.ids == numbers[1:]


@pytest.mark.parametrize("central", ["postgresql"], indirect=True)
def test_a_lost_listening_connection_is_made_again(central, server):
    """When the server ends the connection that listens, nothing is missed, and another one listens."""
    pids = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND query LIKE 'LISTEN%%'"
    with psycopg.connect(server.owner_url, autocommit=True) as admin, Following(central) as following:
        before = wait_until(lambda: admin.execute(pids, (NAME,)).fetchall())
        for (pid,) in before:
            admin.execute("SELECT pg_terminate_backend(%s)", (pid,))
        numbers = [order(central) for _ in range(3)]
        following.wait_for(3)
        after = wait_until(lambda: set(admin.execute(pids, (NAME,)).fetchall()) - set(before))

    assert following.ids == numbers
    assert after


@pytest.mark.parametrize("central", ["postgresql"], indirect=True)
def test_a_replica_is_told_by_notification(central, server):
    """A signal is announced on the channel in the transaction that makes it, to whoever listens there."""
    with psycopg.connect(server.url(), autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        order(central)
        (told,) = listener.notifies(timeout=10, stop_after=1)

    assert told.channel == CHANNEL


def _saw(following: Following, number: int) -> bool:
    return number in following.ids


def _several(transaction: Transaction, count: int) -> None:
    """Make signals of rotations, with one row for all."""
    row = transaction.insert_own({"kind": "admin", "reservation": new_id(), "reason": "rotation", "message": "several"})
    for number in range(count):
        signal(transaction, "rotation", {"target": {"scope": f"s{number}"}, "projects": ["*"]}, row.n)
