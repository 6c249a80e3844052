"""The statements of the writer, compiled once for one database: Core's own execution costs as much as a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, select, text
from sqlalchemy.sql.compiler import SQLCompiler

from prism_vault_agent.central.storage.schema import dropped, event, leaf, policy, presence, token
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ClauseElement, Dialect
    from sqlalchemy.engine.interfaces import DBAPICursor

_FOUND: Final = (
    event.c.n,
    event.c.event_id,
    event.c.host_id,
    event.c.kind,
    event.c.received_at,
    event.c.body,
    event.c.reservation_id,
)

BY_EVENT_ID: Final = select(*_FOUND).where(event.c.event_id == bindparam("event_id"))
# The hash of a body that was dropped is beside it.
HEAD: Final = (
    select(event.c.host_seq, event.c.body, dropped.c.hash)
    .outerjoin(dropped, dropped.c.n == event.c.n)
    .where(event.c.host_id == bindparam("host_id"), event.c.host_epoch == bindparam("host_epoch"))
    .order_by(event.c.host_seq.desc())
    .limit(1)
)
# Epochs are UUIDs of version 7, so the greatest one is the newest.
NEWEST_HEAD: Final = (
    select(event.c.host_epoch, event.c.host_seq, event.c.body, dropped.c.hash)
    .outerjoin(dropped, dropped.c.n == event.c.n)
    .where(event.c.host_id == bindparam("host_id"))
    .order_by(event.c.host_epoch.desc(), event.c.host_seq.desc())
    .limit(1)
)
DROPPED: Final = (
    select(dropped.c.hash, leaf.c.hash.label("leaf")).join(leaf, leaf.c.n == dropped.c.n).where(dropped.c.n == bindparam("n"))
)
POLICY_OF: Final = (
    select(*policy.columns, event.c.body.label("event"))
    .outerjoin(event, event.c.n == policy.c.n)
    .where(policy.c.name == bindparam("name"))
    .order_by(policy.c.version.desc())
    .limit(1)
)
TOKEN_OF: Final = select(*token.columns).where(token.c.name == bindparam("name"))
HOLDER: Final = select(presence).where(presence.c.host_id == bindparam("host_id"))
# Only where the row is what it was when it was read, or is not there yet.
HOLD: Final = text(
    "INSERT INTO presence VALUES (:host_id, :epoch, :installation, :until, :gone, :ended) ON CONFLICT (host_id) DO UPDATE SET "
    "epoch = excluded.epoch, installation = excluded.installation, until = excluded.until, gone = excluded.gone, "
    "ended = excluded.ended WHERE presence.epoch = :was_epoch AND presence.until = :was_until RETURNING host_id"
)
# Texts, because lists and hashes are written differently in the two databases.
OF_RESERVATIONS: Final = (
    "SELECT n, event_id, host_id, kind, received_at, body, reservation_id FROM event WHERE reservation_id {} ORDER BY n"
)
UNSEQUENCED: Final = (
    "SELECT {} FROM event WHERE n > {} AND NOT EXISTS (SELECT 1 FROM leaf WHERE leaf.n = event.n) ORDER BY n LIMIT {}"
)
RENEW: Final = "UPDATE presence SET until = {2}, gone = 0 WHERE host_id {0} AND epoch {1} RETURNING host_id, epoch"
# A row as a whole, and the index of its leaf where it has one.
WHOLE: Final = (
    "SELECT event.n, received_at, event_id, host_id, host_epoch, host_seq, prev_hash, reservation_id, kind, body, idx "
    "FROM event LEFT JOIN leaf ON leaf.n = event.n WHERE event.n IN ({}) ORDER BY event.n"
)


class Placed(NamedTuple):
    """Where an event is on the log, when it came there (milliseconds since 1970), and the hash of its leaf."""

    n: int
    received_at: int
    leaf: bytes


class Found(NamedTuple):
    """What the writer looks at in a row. ``body`` is empty where it was dropped."""

    n: int
    event_id: bytes
    host_id: str
    kind: str
    received_at: int
    body: bytes
    reservation_id: bytes

    @property
    def placed(self) -> Placed:
        """Where the row is, since when, and the hash of its leaf; not for one whose body was dropped."""
        return Placed(self.n, self.received_at, leaf_hash(leaf_data(self.n, self.received_at, self.body)))


class Whole(NamedTuple):
    """A row as a whole. ``idx`` is its leaf's index, None while it waits for one."""

    n: int
    received_at: int
    event_id: bytes
    host_id: str
    host_epoch: bytes
    host_seq: int
    prev_hash: bytes
    reservation_id: bytes
    kind: str
    body: bytes
    idx: int | None


class Prepared:
    """A statement as text for one database, for parameters that need no conversion: numbers, text, bytes."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        """Compile ``statement`` for ``dialect``."""
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self._text = str(compiled)
        self._names = tuple(compiled.positiontup or ())
        self._constants = compiled.params

    def run(self, cursor: DBAPICursor, values: Mapping[str, object]) -> list[Any]:
        """Run it and return all rows. Raises the driver's own errors."""
        given = {**self._constants, **values}
        cursor.execute(self._text, [given[name] for name in self._names] if self._names else given)
        return list(cursor.fetchall())


class Statements:
    """What a transaction reads."""

    def __init__(self, dialect: Dialect) -> None:
        """Compile for ``dialect``."""
        self.by_event_id = Prepared(BY_EVENT_ID, dialect)
        self.head = Prepared(HEAD, dialect)
        self.dropped = Prepared(DROPPED, dialect)
        self.policy_of = Prepared(POLICY_OF, dialect)
        self.token_of = Prepared(TOKEN_OF, dialect)
        self.holder = Prepared(HOLDER, dialect)
        self.hold = Prepared(HOLD, dialect)
