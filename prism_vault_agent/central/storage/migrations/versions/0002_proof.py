"""The tables of terms, proofs, policies, tokens and signals; and the guards that let rows in and never change one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Each new table, and each set of columns of which no two rows have the same. On SQLite a table whose key is not one number
# has no rowid, by which a row could be replaced as well.
_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "term": (("term", "n"),),
    "leaf": (("idx",), ("n",)),
    "node": (("level", "idx"),),
    "checkpoint": (("size",),),
    "policy": (("version",),),
    "token": (("name", "what"), ("sha256", "what")),
    "signal": (("id",),),
    "ack": (("signal", "n"),),
}


def upgrade() -> None:
    """Make the tables and the guards."""
    _table("term", _number("term"), _number("n"), sa.PrimaryKeyConstraint("term", "n"), sqlite_with_rowid=False)
    _table("leaf", _key("idx"), _number("n", unique=True), _bytes("hash"))
    _table(
        "node", _number("level"), _number("idx"), _bytes("hash"), sa.PrimaryKeyConstraint("level", "idx"), sqlite_with_rowid=False
    )
    _table("checkpoint", _key("size"), _bytes("root"), _text("note"), _number("floor"), _number("made_at"))
    _table("policy", _key("version"), _text("name"), _bytes("body"), _number("n"), _number("made_at"))
    _table(
        "token",
        *(_text("name"), _text("what"), _text("sha256"), _bytes("body"), _number("n"), _number("made_at")),
        sa.PrimaryKeyConstraint("name", "what"),
        sa.UniqueConstraint("sha256", "what", name="one_of_hash"),
        sqlite_with_rowid=False,
    )
    _table("signal", _key("id"), _text("kind"), _bytes("body"), _number("n"), _number("made_at"))
    _table(
        "ack",
        *(_number("signal"), _number("n"), _text("host_id"), _number("received_at")),
        sa.PrimaryKeyConstraint("signal", "n"),
        sqlite_with_rowid=False,
    )
    op.create_index("by_time", "event", ["received_at"])
    released = sa.text("kind IN ('success', 'cleared')")
    op.create_index("out_there", "event", ["reservation_id", "kind", "n"], sqlite_where=released, postgresql_where=released)
    if op.get_bind().dialect.name == "sqlite":
        for table, keys in _KEYS.items():
            _guard_sqlite(table, keys)
    else:
        _guard_postgres()


def _guard_sqlite(table: str, keys: tuple[tuple[str, ...], ...]) -> None:
    """Refuse changes. REPLACE passes triggers on DELETE, so the row that it would replace is looked for (see 0001)."""
    for what in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{what.lower()} BEFORE {what} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
    same = " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} WHERE {' AND '.join(f'{column} = NEW.{column}' for column in key)})"  # noqa: S608 - names of ours
        for key in keys
    )
    op.execute(
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {same} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: such a row exists'); END"
    )


def _guard_postgres() -> None:
    """Refuse changes by anyone, a superuser in replica mode included: the guards are ``ENABLE ALWAYS``."""
    op.execute(
        "CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    for table in ("event", *_KEYS):
        for name, when, each in (("no_change", "UPDATE OR DELETE", "ROW"), ("no_truncate", "TRUNCATE", "STATEMENT")):
            op.execute(f"CREATE TRIGGER {table}_{name} BEFORE {when} ON {table} FOR EACH {each} EXECUTE FUNCTION append_only()")
            op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}")


def _table(name: str, *parts: Any, **options: Any) -> None:
    op.create_table(name, *parts, sqlite_strict=True, **options)


def _number(name: str, *, unique: bool = False) -> sa.Column[int]:
    return sa.Column(name, _NUMBER, nullable=False, unique=unique)


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, _NUMBER, primary_key=True, autoincrement=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)
