"""What one transaction of the log sees and does. Rows are gathered, and inserted together at its end."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from prism_vault_agent.audit.event import FIRST, Chain, Fields, digest, new_id
from prism_vault_agent.central.log.holding import BELIEVED_MS, Holder
from prism_vault_agent.central.log.incoming import Event, read
from prism_vault_agent.central.log.terms import terms
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.statements import Found, Placed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Table
    from sqlalchemy.engine.interfaces import DBAPICursor

    from prism_vault_agent.central.log.holding import Sender
    from prism_vault_agent.central.storage.statements import Statements
    from prism_vault_agent.central.storage.writing import Writing

MOST_HEADS: Final = 10_000
MOST_RESERVATIONS: Final = 5_000
Head = tuple[int, str]
NO_HEAD: Final[Head] = (0, FIRST)


class Memory:
    """What the writer saw last of the chains and of the reservations: a guess, which the database's unique indexes check."""

    def __init__(self) -> None:
        """Remember nothing."""
        self.heads: OrderedDict[tuple[str, str], Head] = OrderedDict()
        self.reservations: OrderedDict[str, list[Found]] = OrderedDict()
        self.names: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def learn(self, transaction: Transaction) -> None:
        """Take over what a durable transaction has seen and done."""
        for key, head in transaction.heads.items():
            self.heads[key] = head
            self.heads.move_to_end(key)
        for reservation, rows in transaction.reservations.items():
            if not rows:  # that there are none is no guess to build on: another replica may have them by now
                continue
            self.reservations[reservation] = rows
            self.reservations.move_to_end(reservation)
        for host, believed in transaction.names.items():
            self.names[host] = believed
            self.names.move_to_end(host)
        for known in (self.heads, self.names):
            while len(known) > MOST_HEADS:
                known.popitem(last=False)
        while len(self.reservations) > MOST_RESERVATIONS:
            self.reservations.popitem(last=False)


class Transaction:
    """One transaction. ``now`` is when its events were received: milliseconds since 1970, for all of them.

    ``careful`` means that nothing is remembered and every rule is checked against the rows. Without it, an event that
    continues a known chain is inserted without a look for its id, because the unique index would refuse it.
    """

    def __init__(
        self, cursor: DBAPICursor, writing: Writing, statements: Statements, memory: Memory | None, *, own: Chain, expected: int,
        settled: bool,
    ) -> None:  # fmt: skip
        """Work through ``cursor``; ``own`` is the chain of central itself, ``expected`` about how many events will come.

        ``settled`` tells whether this process has heard for long enough to say that a host is gone (``holding.py``).
        """
        self.settled = settled
        self.names: dict[str, tuple[str, float]] = {}
        self.careful = memory is None
        self.cursor = cursor
        self.writing = writing
        self.own = own
        self.now = time.time_ns() // 1_000_000
        self.heads: dict[tuple[str, str], Head] = {}
        self.reservations: dict[str, list[Found]] = {}
        self.told: set[str] = set()
        self.statements = statements
        self._memory = memory or Memory()
        self._numbers = writing.numbers(cursor, expected)
        self._waiting: dict[Table, list[Sequence[object]]] = {}
        self._gathered: dict[str, Found] = {}
        self._guessed: set[str] = set()

    @property
    def appended(self) -> bool:
        """Tell whether it has put events on the log."""
        return bool(self._gathered)

    def head(self, host: str, epoch: str, *, fresh: bool = False) -> Head:
        """Return the last sequence number and hash of a chain; ``fresh`` looks at the rows, whatever is remembered."""
        key = (host, epoch)
        if key in self.heads:
            return self.heads[key]
        if key in self._memory.heads and not fresh:
            return self._memory.heads[key]
        rows = self.statements.head.run(self.cursor, {"host_id": host, "host_epoch": bytes.fromhex(epoch)})
        self.heads[key] = (rows[0][0], rows[0][2].hex() if rows[0][2] else digest(rows[0][1])) if rows else NO_HEAD
        return self.heads[key]

    def by_event_id(self, event_id: str) -> Found | None:
        """Return the row of an event, where it is on the log."""
        if event_id in self._gathered:
            return self._gathered[event_id]
        rows = self.statements.by_event_id.run(self.cursor, {"event_id": bytes.fromhex(event_id)})
        return Found(*rows[0]) if rows else None

    def fetch(self, reservations: Iterable[str]) -> None:
        """Look at the rows of these reservations, those that are remembered aside, in one question."""
        unknown = {reservation for reservation in reservations if reservation not in self.reservations}
        for reservation in unknown & self._memory.reservations.keys():
            self.reservations[reservation] = list(self._memory.reservations[reservation])
            self._guessed.add(reservation)
        self._read(unknown - self._guessed)

    def of_reservation(self, reservation: str) -> Sequence[Found]:
        """Return the rows of a reservation in the order of their arrival."""
        self.fetch((reservation,))
        return self.reservations[reservation]

    def look_again(self, reservation: str) -> bool:
        """Look at the rows of a reservation that was only remembered so far; tell whether it was."""
        if reservation not in self._guessed:
            return False
        self._guessed.remove(reservation)
        ours = [found for found in self.reservations[reservation] if found in self._gathered.values()]
        self._read({reservation})
        self.reservations[reservation] += ours
        return True

    def read_again(self, reservations: set[str]) -> None:
        """Look at the rows of those of these reservations that are remembered: they were changed by a drop."""
        self._read(reservations & (self.reservations.keys() | self._memory.reservations.keys()))

    def as_sent(self, row: Found) -> tuple[str, Placed]:
        """Return the hash of a row's bytes as they were sent, and its place; they may have been dropped since."""
        if row.body:
            return digest(row.body), row.placed
        hashed, leaf = self.statements.dropped.run(self.cursor, {"n": row.n})[0]
        return hashed.hex(), Placed(row.n, row.received_at, leaf)

    def _read(self, reservations: set[str]) -> None:
        if reservations:
            self.reservations |= {reservation: [] for reservation in reservations}
            for found in self.writing.of_reservations(self.cursor, [bytes.fromhex(each) for each in reservations]):
                self.reservations[found.reservation_id.hex()].append(found)

    def believed(self, host: str) -> str:
        """Return the epoch that has a host's name, where that was found out a moment ago; else nothing."""
        epoch, since = self.names.get(host) or self._memory.names.get(host) or ("", 0.0)
        return epoch if time.monotonic() - since < BELIEVED_MS / 1000 else ""

    def believe(self, sender: Sender) -> None:
        """Take note that ``sender`` has its host's name."""
        self.names[sender.host] = (sender.epoch, time.monotonic())

    def holder(self, host: str) -> Holder | None:
        """Return who has a host's name, by the row."""
        rows = self.statements.holder.run(self.cursor, {"host_id": host})
        if not rows:
            return None
        _, epoch, installation, until, gone, ended = rows[0]
        starts = tuple(ended[at : at + 16].hex() for at in range(0, len(ended), 16))
        return Holder(epoch.hex(), installation.hex(), until, bool(gone), starts)

    def hold(self, host: str, holder: Holder, was: Holder | None) -> bool:
        """Put ``holder`` in the place of ``was``; tell whether the row was that still."""
        values = {
            "host_id": host,
            "epoch": bytes.fromhex(holder.epoch),
            "installation": bytes.fromhex(holder.installation),
            "until": holder.until,
            "gone": int(holder.left),
            "ended": bytes.fromhex("".join(holder.ended)),
            "was_epoch": bytes.fromhex(was.epoch) if was else b"",
            "was_until": was.until if was else 0,
        }
        return bool(self.statements.hold.run(self.cursor, values))

    def renew(self, senders: Collection[Sender], until: int) -> set[tuple[str, str]]:
        """Let those keep their hosts' names ``until`` then who have them; return the hosts and epochs of these."""
        hosts, epochs = [each.host for each in senders], [bytes.fromhex(each.epoch) for each in senders]
        return {(host, bytes(epoch).hex()) for host, epoch in self.writing.renew(self.cursor, hosts, epochs, until)}

    def insert(self, event: Event) -> Placed:
        """Insert a checked event that continues its chain, and return its place."""
        n = next(self._numbers)
        event_id, reservation = bytes.fromhex(event.event_id), bytes.fromhex(event.reservation)
        place = (event.host, bytes.fromhex(event.epoch), event.seq, bytes.fromhex(event.prev))
        self.also(schema.event, (n, event_id, *place, reservation, event.kind, self.now, event.body))
        for number in terms(event.kind, event.host, event.fields):
            self.also(schema.term, (number, n))
        found = Found(n, event_id, event.host, event.kind, self.now, event.body, reservation)
        self.heads[event.host, event.epoch] = (event.seq, event.hash)
        self._gathered[event.event_id] = found
        self.fetch((event.reservation,))
        self.reservations[event.reservation].append(found)
        return found.placed

    def insert_own(self, fields: Fields) -> Placed:
        """Insert an event that central itself makes, at the end of its own chain, and return its place.

        It gets an id of its own unless ``fields`` bring one.
        """
        common = {
            "event_id": new_id(),
            "at": self.now,
            "boot_ms": time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
        }
        body = self.own.seal({**common, **fields})
        placed = self.insert(read(body))
        self.own.accept(body)
        return placed

    def also(self, table: Table, row: Sequence[object]) -> None:
        """Insert a row of another table with this transaction: all columns, in their order."""
        self._waiting.setdefault(table, []).append(row)

    def gathered(self, table: Table) -> Sequence[Sequence[object]]:
        """Return the rows of a table that wait to be inserted."""
        return self._waiting.get(table, ())

    def tell(self, channel: str) -> None:
        """Wake whoever listens on ``channel``, here or in another replica, once the transaction is durable."""
        self.told.add(channel)
        self.writing.tell(self.cursor, channel)

    def flush(self) -> None:
        """Insert what was gathered. Raises the driver's errors; those of a row that is there already among them."""
        for table, rows in self._waiting.items():
            self.writing.insert(self.cursor, table, rows)
        self._waiting.clear()
