"""The tables of central, the same on SQLite and PostgreSQL. Rows are inserted and read; nothing but a drop changes one.

The tables are made by the migrations; what stands here must equal what they make (a test compares them).

==============  ========================================================================================================
``event``       the audit log: each row's ``body`` is the canonical JSON that its sender hashed (``audit/event.py``)
``term``        which events speak of a scope, project, run, job, purpose, host: how a question finds rows (``log/terms.py``)
``leaf``        the log in its final order: contiguous from 0, one leaf of the Merkle tree for each event
``node``        roots of complete subtrees, at the levels that proofs are made of (``proof/merkle.py``)
``checkpoint``  signed sizes and roots of the tree; ``floor`` says up to which ``n`` every event has its leaf
``policy``      one row for each version of the rules: a rule under its name, or its removal
``token``       one row for each service token, and one for its revocation
``signal``      what is told to all hosts: rotations, revocations, changes of policy; ``id`` is contiguous from 1
``ack``         what a host says it did about a signal; ``n`` is its event
``dropped``     events whose body is empty now: ``hash`` is the SHA-256 of what it was, ``by_n`` the event that dropped it
``presence``    who has a host's name now (``log/holding.py``): it proves nothing, changes, and is in no backup
==============  ========================================================================================================
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

REVISION: Final = "0004"
ENDINGS: Final = frozenset({"success", "denied", "failure", "abandoned"})

_Number: Final = BigInteger().with_variant(Integer(), "sqlite")

metadata: Final = MetaData()
event: Final = Table(
    "event",
    metadata,
    Column("n", _Number, primary_key=True),
    Column("event_id", LargeBinary, nullable=False, unique=True),
    Column("host_id", Text, nullable=False),
    Column("host_epoch", LargeBinary, nullable=False),
    Column("host_seq", _Number, nullable=False),
    Column("prev_hash", LargeBinary, nullable=False),
    Column("reservation_id", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    Column("received_at", _Number, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("host_id", "host_epoch", "host_seq", name="one_place"),
    sqlite_strict=True,
)
_OPENED: Final = text("kind = 'reserved'")
# These words, since SQLite goes by the index only where a question repeats them.
ENDED: Final = text("kind IN ('success', 'denied', 'failure', 'abandoned')")
Index("one_open", event.c.reservation_id, unique=True, sqlite_where=_OPENED, postgresql_where=_OPENED)
Index("one_final", event.c.reservation_id, unique=True, sqlite_where=ENDED, postgresql_where=ENDED)
Index("of_reservation", event.c.reservation_id)
Index("by_time", event.c.received_at)
_RELEASED: Final = text("kind IN ('success', 'cleared')")
Index("out_there", event.c.reservation_id, event.c.kind, event.c.n, sqlite_where=_RELEASED, postgresql_where=_RELEASED)

term: Final = Table(
    "term",
    metadata,
    Column("term", _Number, nullable=False),
    Column("n", _Number, nullable=False),
    PrimaryKeyConstraint("term", "n"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
leaf: Final = Table(
    "leaf",
    metadata,
    Column("idx", _Number, primary_key=True, autoincrement=False),
    Column("n", _Number, nullable=False, unique=True),
    Column("hash", LargeBinary, nullable=False),
    sqlite_strict=True,
)
node: Final = Table(
    "node",
    metadata,
    Column("level", _Number, nullable=False),
    Column("idx", _Number, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("level", "idx"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
checkpoint: Final = Table(
    "checkpoint",
    metadata,
    Column("size", _Number, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
    Column("floor", _Number, nullable=False),
    Column("made_at", _Number, nullable=False),
    sqlite_strict=True,
)
policy: Final = Table(
    "policy",
    metadata,
    Column("version", _Number, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("n", _Number, nullable=False),
    Column("made_at", _Number, nullable=False),
    sqlite_strict=True,
)
token: Final = Table(
    "token",
    metadata,
    Column("name", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("n", _Number, nullable=False),
    Column("made_at", _Number, nullable=False),
    PrimaryKeyConstraint("name", "what"),
    UniqueConstraint("sha256", "what", name="one_of_hash"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
signal: Final = Table(
    "signal",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("n", _Number, nullable=False),
    Column("made_at", _Number, nullable=False),
    sqlite_strict=True,
)
ack: Final = Table(
    "ack",
    metadata,
    Column("signal", _Number, nullable=False),
    Column("n", _Number, nullable=False),
    Column("host_id", Text, nullable=False),
    Column("received_at", _Number, nullable=False),
    PrimaryKeyConstraint("signal", "n"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
dropped: Final = Table(
    "dropped",
    metadata,
    Column("n", _Number, primary_key=True, autoincrement=False),
    Column("by_n", _Number, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_strict=True,
)
Index("of_drop", dropped.c.by_n)

presence: Final = Table(
    "presence",
    MetaData(),  # of its own: it is no part of the log
    Column("host_id", Text, primary_key=True),
    Column("epoch", LargeBinary, nullable=False),
    Column("installation", LargeBinary, nullable=False),
    Column("until", _Number, nullable=False),
    Column("gone", _Number, nullable=False),
    Column("ended", LargeBinary, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
