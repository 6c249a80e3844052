"""The log's final order: every event gets one leaf, and signed checkpoints follow, on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import select

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.log.sequencer import Sequencer
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.log.writer import Writer
from prism_vault_agent.central.signing import read_key
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import reading_engine, writing_engine
from prism_vault_agent.central.storage.tree import fetch
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import Frontier, leaf_hash
from prism_vault_agent.proof.note import Checkpoint, open_note
from prism_vault_agent.proof.tiles import root_of
from tests.central.host import Host
from tests.central.own_log import KEY, OwnLog
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOSTS = {f"server{number}": ["*"] for number in range(1, 5)}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def central(request, tmp_path_factory) -> Iterator[CentralProcess]:
    """Return a central on each kind of database."""
    server = request.getfixturevalue("server") if request.param == "postgresql" else None
    with CentralProcess(tmp_path_factory.mktemp(request.param), agents=HOSTS, server=server) as running:
        yield running


class Log:
    """The tables, as a reader of the database finds them."""

    def __init__(self, central: CentralProcess) -> None:
        self.engine = reading_engine(central.setting("database"))

    def rows(self, *columns: Any) -> list[Any]:
        """Return the columns of every row, in the order of the first."""
        with self.engine.connect() as connection:
            return list(connection.execute(select(*columns).order_by(columns[0])).all())

    def sequenced(self) -> bool:
        """Tell whether the newest checkpoint is about every event."""
        sizes = [row.size for row in self.rows(schema.checkpoint.c.size)]
        return bool(sizes) and sizes[-1] == len(self.rows(schema.event.c.n))


@pytest.fixture
def log(central) -> Iterator[Log]:
    """Return the central's database."""
    opened = Log(central)
    with contextlib.closing(opened.engine.raw_connection()):
        yield opened
    opened.engine.dispose()


def test_every_event_gets_one_leaf_and_a_signed_checkpoint(central, log):
    """After events of several hosts at once, the leaves are contiguous, one a row, and the newest note signs their root."""
    loads = [threading.Thread(target=_append, args=(central, host, 20)) for host in HOSTS]
    for load in loads:
        load.start()
    for load in loads:
        load.join()
    wait_until(log.sequenced)
    events = {row.n: row for row in log.rows(schema.event.c.n, schema.event.c.received_at, schema.event.c.body)}
    leaves = log.rows(schema.leaf.c.idx, schema.leaf.c.n, schema.leaf.c.hash)
    notes = log.rows(schema.checkpoint.c.size, schema.checkpoint.c.note)
    tree = Frontier()
    tree.extend([leaf.hash for leaf in leaves])

    assert [leaf.idx for leaf in leaves] == list(range(len(events)))
    assert sorted(leaf.n for leaf in leaves) == sorted(events)
    assert all(leaf.hash == leaf_hash(leaf_data(leaf.n, events[leaf.n].received_at, events[leaf.n].body)) for leaf in leaves)
    text = open_note(notes[-1].note, read_key(central.key_file).verifying_key)
    assert Checkpoint.parse(text).root == tree.root()
    assert Checkpoint.parse(text).size == len(events)
    with log.engine.connect() as connection:
        assert root_of(len(leaves), partial(fetch, connection.connection.cursor())) == tree.root()


def test_a_restart_goes_on_where_the_log_was(central, log):
    """A central that is killed and started again continues the same tree: earlier checkpoints stay true of its first leaves."""
    _append(central, "server1", 3)
    wait_until(log.sequenced)
    before = log.rows(schema.checkpoint.c.size, schema.checkpoint.c.root)[-1]
    central.kill()
    central.start()
    _append(central, "server1", 3)
    wait_until(log.sequenced)
    leaves = log.rows(schema.leaf.c.idx, schema.leaf.c.hash)
    tree = Frontier()
    tree.extend([leaf.hash for leaf in leaves[: before.size]])

    assert tree.root() == before.root
    assert len(leaves) > before.size


@pytest.mark.tool("initdb")
def test_a_transaction_that_ends_late_holds_nothing_back(server, tmp_path):
    """While a transaction with an early number is open, later events get leaves and checkpoints; it gets its own when it ends."""
    with CentralProcess(tmp_path, server=server) as central:
        opened = Log(central)
        with psycopg.connect(server.owner_url) as late:
            late.execute("SELECT pg_current_xact_id()")
            (n,) = late.execute("SELECT nextval('event_n_seq')").fetchone() or (0,)
            _append(central, "server1", 5)
            wait_until(opened.sequenced)
            before = {leaf.n for leaf in opened.rows(schema.leaf.c.idx, schema.leaf.c.n)}
            late.execute(
                "INSERT INTO event VALUES (%s, %s, 'late', %s, 1, '', %s, 'admin', 0, '{}')",
                (n, *(bytes.fromhex(new_id()) for _ in range(3))),
            )
        wait_until(opened.sequenced)
        after = [leaf.n for leaf in opened.rows(schema.leaf.c.idx, schema.leaf.c.n)]
        opened.engine.dispose()

    assert n not in before
    assert max(before) > n
    assert after[-1] == n


def _append(central: CentralProcess, name: str, count: int) -> None:
    host = Host(central, name)
    for _ in range(count):
        assert host.end("success", host.reserve()).status_code == 200


def test_a_turn_that_was_cancelled_is_over_before_the_last_one(databases):
    """When central ends while a turn waits for the writer, the last turn comes behind it: the tree grows once, over all."""
    failed: list[Exception] = []
    with OwnLog(databases.new()) as log:
        log.render("server1")
        writer = Writer(Store(writing_engine(log.database)), failed.append)
        sequencer = Sequencer(writer, KEY, 0.2, shared=False)

        async def end() -> None:
            running = asyncio.create_task(sequencer.run())
            await _soon(lambda: writer.waiting == 1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            last = asyncio.create_task(sequencer.finish())
            await _soon(lambda: writer.waiting == 2)
            writer.start()
            await last
            await asyncio.to_thread(writer.stop)

        asyncio.run(end())
        leaves, events = log.rows(schema.leaf.c.n), log.rows(schema.event.c.n)
        sizes = [row.size for row in log.rows(schema.checkpoint.c.size)]

    assert failed == []
    assert leaves == events
    assert sizes == [len(events)]


async def _soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the writer has no event for it
            await asyncio.sleep(0.001)
