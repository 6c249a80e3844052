"""The event table, its unique indexes, and the triggers that let rows in and never change one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OPENED = sa.text("kind = 'reserved'")
_ENDED = sa.text("kind IN ('success', 'denied', 'failure', 'abandoned')")

# REPLACE deletes the old row without firing DELETE triggers unless the connection asked for recursive ones, so the
# row that would be replaced is looked for before the insert, by each unique key. The last two conditions repeat the
# partial indexes.
_SQLITE_TRIGGERS = (
    """
    CREATE TRIGGER event_no_update BEFORE UPDATE ON event
    BEGIN SELECT RAISE(ABORT, 'event is append-only: rows are never changed'); END
    """,
    """
    CREATE TRIGGER event_no_delete BEFORE DELETE ON event
    BEGIN SELECT RAISE(ABORT, 'event is append-only: rows are never removed'); END
    """,
    """
    CREATE TRIGGER event_no_replace BEFORE INSERT ON event
    WHEN EXISTS (SELECT 1 FROM event WHERE n = NEW.n)
      OR EXISTS (SELECT 1 FROM event WHERE event_id = NEW.event_id)
      OR EXISTS (SELECT 1 FROM event
                 WHERE host_id = NEW.host_id AND host_epoch = NEW.host_epoch AND host_seq = NEW.host_seq)
      OR (NEW.kind = 'reserved'
          AND EXISTS (SELECT 1 FROM event WHERE reservation_id = NEW.reservation_id AND kind = 'reserved'))
      OR (NEW.kind IN ('success', 'denied', 'failure', 'abandoned')
          AND EXISTS (SELECT 1 FROM event WHERE reservation_id = NEW.reservation_id
                      AND kind IN ('success', 'denied', 'failure', 'abandoned')))
    BEGIN SELECT RAISE(ABORT, 'event is append-only: such a row exists'); END
    """,
)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "event",
        sa.Column("n", _NUMBER, primary_key=True),
        sa.Column("event_id", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("host_id", sa.Text, nullable=False),
        sa.Column("host_epoch", sa.LargeBinary, nullable=False),
        sa.Column("host_seq", _NUMBER, nullable=False),
        sa.Column("prev_hash", sa.LargeBinary, nullable=False),
        sa.Column("reservation_id", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("received_at", _NUMBER, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("host_id", "host_epoch", "host_seq", name="one_place"),
        sqlite_strict=True,
    )
    op.create_index("one_open", "event", ["reservation_id"], unique=True, sqlite_where=_OPENED, postgresql_where=_OPENED)
    op.create_index("one_final", "event", ["reservation_id"], unique=True, sqlite_where=_ENDED, postgresql_where=_ENDED)
    op.create_index("of_reservation", "event", ["reservation_id"])
    if op.get_bind().dialect.name == "sqlite":
        for trigger in _SQLITE_TRIGGERS:
            op.execute(trigger)
