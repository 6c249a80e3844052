"""Bodies may be dropped: the table that says which and by which event, and the rules under which the guards let one go.

A row may be named in ``dropped`` where it has its leaf under a checkpoint, its reservation is over, it is not one of
central's own about the log itself, and the event that drops it is. Then its body may become empty, and the terms by which it
was found may go; nothing else of it changes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEPT = ("n", "event_id", "host_id", "host_epoch", "host_seq", "prev_hash", "reservation_id", "kind", "received_at")
# Why a row may not be dropped, in SQL that both databases speak; NEW is the row of ``dropped``.
_RULES = {
    "no checkpoint covers it": (
        "NOT EXISTS (SELECT 1 FROM leaf WHERE leaf.n = NEW.n AND leaf.idx < (SELECT max(size) FROM checkpoint))"
    ),
    "it is about the log itself": (
        "EXISTS (SELECT 1 FROM event WHERE n = NEW.n AND host_id = 'central' AND kind IN ('admin', 'policy'))"
    ),
    "its reservation is open": (
        "EXISTS (SELECT 1 FROM event AS e JOIN event AS o ON o.reservation_id = e.reservation_id AND o.kind = 'reserved' "
        "WHERE e.n = NEW.n AND NOT EXISTS (SELECT 1 FROM event AS d WHERE d.reservation_id = e.reservation_id "
        "AND d.kind IN ('success', 'denied', 'failure', 'abandoned')))"
    ),
    "no event of central drops it": (
        "NOT EXISTS (SELECT 1 FROM event WHERE n = NEW.by_n AND host_id = 'central' AND kind = 'admin')"
    ),
}

_POSTGRES = (
    """
    CREATE FUNCTION only_dropped_bodies() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
    BEGIN
      OLD.body := '';
      IF NEW IS DISTINCT FROM OLD OR NOT EXISTS (SELECT 1 FROM dropped WHERE n = OLD.n) THEN
        RAISE EXCEPTION 'event is append-only' USING ERRCODE = 'integrity_constraint_violation';
      END IF;
      RETURN NEW;
    END $$
    """,
    """
    CREATE FUNCTION only_dropped_terms() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
    BEGIN
      IF NOT EXISTS (SELECT 1 FROM dropped WHERE n = OLD.n) THEN
        RAISE EXCEPTION 'term is append-only' USING ERRCODE = 'integrity_constraint_violation';
      END IF;
      RETURN OLD;
    END $$
    """,
    "CREATE FUNCTION may_be_dropped() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$ BEGIN "
    + " ".join(
        f"IF {rule} THEN RAISE EXCEPTION 'event % may not be dropped: {why}', NEW.n "
        "USING ERRCODE = 'integrity_constraint_violation'; END IF;"
        for why, rule in _RULES.items()
    )
    + " RETURN NEW; END $$",
    # The service may change no row; this is all that it may have changed, and the owner does it.
    """
    CREATE FUNCTION drop_bodies(by_event bigint, numbers bigint[], terms bigint[], terms_of bigint[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE count bigint;
    BEGIN
      INSERT INTO dropped (n, by_n, hash) SELECT n, by_event, sha256(body) FROM event WHERE n = ANY (numbers);
      UPDATE event SET body = '' WHERE n = ANY (numbers);
      GET DIAGNOSTICS count = ROW_COUNT;
      DELETE FROM term USING unnest(terms, terms_of) AS gone (term, n) WHERE term.term = gone.term AND term.n = gone.n;
      RETURN count;
    END $$
    """,
    "REVOKE ALL ON FUNCTION drop_bodies FROM PUBLIC",
)


def upgrade() -> None:
    """Make the table, and let the guards of events and terms heed it."""
    op.create_table(
        "dropped",
        sa.Column("n", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("by_n", _NUMBER, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("of_drop", "dropped", ["by_n"])
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgres()


def _guard_sqlite() -> None:
    same = " AND ".join(f"NEW.{column} IS OLD.{column}" for column in _KEPT)
    named = "EXISTS (SELECT 1 FROM dropped WHERE n = OLD.n)"
    op.execute("DROP TRIGGER event_no_update")
    op.execute("DROP TRIGGER term_no_delete")
    _trigger("event_no_update", "UPDATE ON event", f"NOT (NEW.body = x'' AND {same} AND {named})", "event is append-only")
    _trigger("term_no_delete", "DELETE ON term", f"NOT {named}", "term is append-only")
    _trigger("dropped_no_update", "UPDATE ON dropped", "true", "dropped is append-only")
    _trigger("dropped_no_delete", "DELETE ON dropped", "true", "dropped is append-only")
    there = "EXISTS (SELECT 1 FROM dropped WHERE n = NEW.n)"
    _trigger("dropped_no_replace", "INSERT ON dropped", there, "dropped is append-only: such a row exists")
    for number, (why, rule) in enumerate(_RULES.items(), 1):
        _trigger(f"dropped_rule_{number}", "INSERT ON dropped", rule, f"the event may not be dropped: {why}")


def _trigger(name: str, before: str, when: str, why: str) -> None:
    op.execute(f"CREATE TRIGGER {name} BEFORE {before} WHEN {when} BEGIN SELECT RAISE(ABORT, '{why}'); END")


def _guard_postgres() -> None:
    for statement in _POSTGRES:
        op.execute(statement)
    op.execute("DROP TRIGGER event_no_change ON event")
    op.execute("DROP TRIGGER term_no_change ON term")
    _always("event", "no_update", "UPDATE", "only_dropped_bodies")
    _always("event", "no_delete", "DELETE", "append_only")
    _always("term", "no_update", "UPDATE", "append_only")
    _always("term", "no_delete", "DELETE", "only_dropped_terms")
    _always("dropped", "no_change", "UPDATE OR DELETE", "append_only")
    _always("dropped", "no_truncate", "TRUNCATE", "append_only", each="STATEMENT")
    _always("dropped", "rule", "INSERT", "may_be_dropped")


def _always(table: str, name: str, when: str, function: str, *, each: str = "ROW") -> None:
    op.execute(f"CREATE TRIGGER {table}_{name} BEFORE {when} ON {table} FOR EACH {each} EXECUTE FUNCTION {function}()")
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}")
