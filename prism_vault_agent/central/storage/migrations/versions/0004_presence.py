"""Who has a host's name now: one row for each host, which changes. It is no part of the log, and nothing guards it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "presence",
        sa.Column("host_id", sa.Text, primary_key=True),
        sa.Column("epoch", sa.LargeBinary, nullable=False),
        sa.Column("installation", sa.LargeBinary, nullable=False),
        sa.Column("until", _NUMBER, nullable=False),
        sa.Column("gone", _NUMBER, nullable=False),
        sa.Column("ended", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
