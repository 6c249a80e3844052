"""The rows of signals: contiguous ids that appear in their order, whoever writes, on both databases."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.log.signals import CHANNEL, signal
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import reading_engine, writing_engine

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from prism_vault_agent.central.log.transaction import Transaction
    from tests.central.own_log import Databases

WRITERS, EACH = 4, 15


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Return an empty log on each kind of database, for several writers."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    return databases.new()


def tell(transaction: Transaction, *names: str) -> list[int]:
    """Make a signal with its audit row for each name."""
    told = []
    for name in names:
        row = transaction.insert_own({"kind": "admin", "reservation": new_id(), "reason": "rotation", "message": name})
        told.append(signal(transaction, "rotation", {"scope": name}, row.n))
    return told


def test_ids_are_contiguous_and_appear_in_order(database):
    """With four writers at once, no reader ever sees an id without all ids before it, and each signal is there once."""
    stores = [Store(writing_engine(database)) for _ in range(WRITERS)]
    made: dict[int, str] = {}
    done = threading.Event()
    gaps: list[list[int]] = []
    watching = threading.Thread(target=_watch, args=(reading := reading_engine(database), done, gaps))
    writing = [threading.Thread(target=_write, args=(store, f"w{number}", made)) for number, store in enumerate(stores)]
    for thread in (watching, *writing):
        thread.start()
    for thread in writing:
        thread.join()
    done.set()
    watching.join()
    with reading.connect() as connection:
        rows = connection.execute(select(schema.signal).order_by(schema.signal.c.id)).all()
        events = {row.n: row.body for row in connection.execute(select(schema.event.c.n, schema.event.c.body))}
    reading.dispose()

    assert gaps == []
    assert [row.id for row in rows] == list(range(1, 2 * WRITERS * EACH + 1))
    assert {row.id: json.loads(row.body)["scope"] for row in rows} == made
    assert all(json.loads(events[row.n])["message"] == json.loads(row.body)["scope"] for row in rows)


def test_a_store_says_that_a_signal_is_durable(database):
    """After a transaction with a signal, the store names its channel; after one without, none."""
    with contextlib.closing(Store(writing_engine(database))) as store:
        store.run([tell])
        silent = store.told
        store.run([lambda transaction: tell(transaction, "web")])
        assert silent == frozenset()
        assert store.told == {CHANNEL}


def _write(store: Store, name: str, made: dict[int, str]) -> None:
    """Make signals, two in each transaction."""
    for number in range(EACH):
        names = (f"{name}-{number}a", f"{name}-{number}b")
        told: list[int] = []

        def work(transaction: Transaction, names: tuple[str, str] = names, told: list[int] = told) -> None:
            told[:] = tell(transaction, *names)

        store.run([work])
        made.update(zip(told, names, strict=True))
    store.close()


def _watch(engine: Engine, done: threading.Event, gaps: list[list[int]]) -> None:
    """Look again and again whether the ids that are there are all ids up to the last."""
    while not done.is_set():
        with engine.connect() as connection:
            ids = [row.id for row in connection.execute(select(schema.signal.c.id).order_by(schema.signal.c.id))]
        if ids != list(range(1, len(ids) + 1)):
            gaps.append(ids)
