"""What hosts are told: rotations, revocations and changes of policy, one row each.

Ids are contiguous from 1 in the order in which the rows become durable: whoever has seen the row of an id will never find a
new one before it. So a reader that remembers one number misses nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from prism_vault_agent.audit.event import canonical
from prism_vault_agent.central.storage import schema

if TYPE_CHECKING:
    from prism_vault_agent.audit.event import Fields
    from prism_vault_agent.central.log.transaction import Transaction

Kind = Literal["rotation", "revocation", "policy"]
CHANNEL: Final = "prism_vault_signals"
SIGNALS: Final = 0x7072_6973_6D02  # a lock's number: whoever has it gives out ids


def signal(transaction: Transaction, kind: Kind, body: Fields, n: int) -> int:
    """Tell all hosts of ``body`` once the transaction is durable, and return the signal's id.

    ``n`` is the signal's own row on the audit log. The ids of other transactions wait for the end of this one.
    """
    cursor = transaction.cursor
    transaction.writing.in_turn(cursor, SIGNALS)
    cursor.execute("SELECT coalesce(max(id), 0) FROM signal")
    number = int(cursor.fetchall()[0][0]) + len(transaction.gathered(schema.signal)) + 1
    transaction.also(schema.signal, (number, kind, canonical(body), n, transaction.now))
    transaction.tell(CHANNEL)
    return number


def known(transaction: Transaction, number: int) -> bool:
    """Tell whether there is a signal with this id."""
    if any(row[0] == number for row in transaction.gathered(schema.signal)):
        return True
    transaction.cursor.execute(f"SELECT 1 FROM signal WHERE id = {number:d}")  # noqa: S608 - a number
    return bool(transaction.cursor.fetchall())
