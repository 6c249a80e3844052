"""A log with at least one row in every table."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prism_vault_agent.audit.event import new_id
from prism_vault_agent.central.log.drop import Doomed, drop
from prism_vault_agent.central.storage import schema
from tests.central.own_log import OwnLog

if TYPE_CHECKING:
    from prism_vault_agent.central.log.transaction import Transaction

# Row 1 is reserved and over; 2 its success; 3 open; 4, 5 dropped; 6 a denial without a leaf; 7 the event that dropped.
OVER, SUCCESS, OPEN, GONE, GONE_TOO, NEW, ADMIN = 1, 2, 3, 4, 5, 6, 7


def fill(database: str, *, node: bool = True) -> None:
    """Append seven events, and rows of what else is told and kept; a ``node`` is not of the tree, which is too small for one."""
    with OwnLog(database) as log:
        log.render()
        log.render(ending="")
        log.render()
        log.sequence()
        log.send(log.make("denied", new_id()))
        log.store.run([partial(drop, doomed=Doomed((GONE, GONE_TOO)), why={"reason": "purged"}), _others])
        if node:
            log.store.run([_node])


def _node(transaction: Transaction) -> None:
    transaction.also(schema.node, (8, 0, bytes(32)))


def _others(transaction: Transaction) -> None:
    for n in (1, 2):
        transaction.also(schema.policy, (n, f"rule{n}", b"{}", ADMIN, 0))
        transaction.also(schema.token, (f"token{n}", "created", f"{n:064x}", b"{}", ADMIN, 0))
        transaction.also(schema.signal, (n, "policy", b"{}", ADMIN, 0))
        transaction.also(schema.ack, (n, ADMIN, "server1", 0))
