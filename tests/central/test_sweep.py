"""Which reservations central ends because their outcome never came, whatever order their rows became durable in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.access.identity import Identity
from prism_vault_agent.central.log import sweep
from prism_vault_agent.central.log.append import append
from prism_vault_agent.central.log.incoming import read
from prism_vault_agent.central.log.sweep import Sweeper
from prism_vault_agent.central.storage import schema
from tests.central.own_log import EVERY, Direct, OwnLog

if TYPE_CHECKING:
    from prism_vault_agent.central.log.transaction import Transaction
    from tests.central.own_log import Databases


def sweeper_of(log: OwnLog, lifetime: float = 0.0) -> Sweeper:
    """Return one that ends what is open for longer than ``lifetime`` seconds."""
    writer: Any = Direct(log)
    return Sweeper(log.readers, writer, lifetime, lambda _count: None)


def abandoned(log: OwnLog) -> set[str]:
    """Return the reservations that were ended."""
    return {
        row.reservation_id.hex()
        for row in log.rows(schema.event.c.reservation_id, schema.event.c.kind)
        if row.kind == "abandoned"
    }


@pytest.mark.tool("initdb")
def test_a_row_that_becomes_durable_late_is_swept_too(postgresql_databases: Databases):
    """A reservation in a transaction that ends after rows with higher indexes were swept is ended by the next sweep."""
    database = postgresql_databases.new()
    with OwnLog(database) as log, OwnLog(database) as late:
        sweeper = sweeper_of(log)
        body = late.make("reserved", new_id(), "late-host")

        def slow(transaction: Transaction) -> None:
            append(transaction, Identity("late-host", "agent", "late-host", EVERY), late.policies, [read(body)])
            transaction.flush()
            log.render(ending="")
            assert asyncio.run(sweeper.sweep()) == 1

        late.store.run([slow])
        assert asyncio.run(sweeper.sweep()) == 1
        assert read(body).reservation in abandoned(log)


def test_a_first_sweep_looks_at_few_rows_at_once(databases: Databases, monkeypatch: pytest.MonkeyPatch):
    """What is open is found wherever it is in the log, window by window, and what is young is left alone."""
    monkeypatch.setattr(sweep, "MOST_LOOKED_AT", 7)
    with OwnLog(databases.new()) as log:
        there = set()
        for _ in range(5):
            there.add(log.render(ending=""))
            for _ in range(5):
                log.render()
        assert asyncio.run(sweeper_of(log, 60.0).sweep()) == 0
        assert asyncio.run(sweeper_of(log).sweep()) == 5
        assert abandoned(log) == there
