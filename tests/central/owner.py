"""Whoever owns the database: the file's owner, or a superuser of the server. No guard stops them, and no secret is theirs."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import psycopg

from prism_vault_agent.audit.event import canonical, digest
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import Frontier, leaf_hash
from prism_vault_agent.proof.note import Checkpoint, seal

if TYPE_CHECKING:
    from prism_vault_agent.proof.keys import SigningKey
    from tests.central.own_log import Databases

GUARDS = (
    "SELECT 'DROP TRIGGER ' || name FROM sqlite_master WHERE type = 'trigger'",
    "SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass) FROM pg_trigger WHERE NOT tgisinternal",
)
INDEXES = (
    "SELECT 'DROP INDEX ' || name FROM sqlite_master WHERE type = 'index' AND name IN ('one_open', 'one_final')",
    "SELECT format('DROP INDEX %I', indexname) FROM pg_indexes WHERE indexname IN ('one_open', 'one_final')",
)


class Owner:
    """Changes a database of central's by SQL, with ``?`` for values."""

    def __init__(self, databases: Databases, database: str) -> None:
        self._where = databases.owner(database) or database
        self._server = databases.server is not None

    def run(self, statement: str, *values: Any) -> list[Any]:
        """Run one statement for itself, and return its rows."""
        if self._server:
            with psycopg.connect(self._where, autocommit=True) as connection:
                cursor = connection.execute(
                    statement.replace("%", "%%").replace("?", "%s") if values else statement, values or None
                )
                return cursor.fetchall() if cursor.description else []
        with contextlib.closing(sqlite3.connect(self._where, isolation_level=None)) as opened:
            return opened.execute(statement, values).fetchall()

    def unguard(self) -> None:
        """Drop every guard, and the indexes that keep reservations unique."""
        for which in (GUARDS, INDEXES):
            for (statement,) in self.run(which[self._server]):
                self.run(statement)

    def empty(self, *tables: str) -> None:
        """Remove every row of tables."""
        for table in tables:
            self.run(f"{'TRUNCATE' if self._server else 'DELETE FROM'} {table}")

    def body(self, n: int) -> dict[str, Any]:
        """Return what an event says."""
        fields: dict[str, Any] = json.loads(bytes(self.run("SELECT body FROM event WHERE n = ?", n)[0][0]))
        return fields

    def write(self, n: int, fields: dict[str, Any]) -> None:
        """Make an event say something else, with the columns that repeat it."""
        self.run(
            "UPDATE event SET body = ?, event_id = ?, host_id = ?, host_epoch = ?, host_seq = ?, prev_hash = ?, "
            "reservation_id = ?, kind = ? WHERE n = ?",
            *(canonical(fields), *columns(fields), n),
        )

    def rechain(self, n: int) -> None:
        """Make every later event of the host of ``n`` follow it again."""
        fields = self.body(n)
        followed = []
        for (later,) in self.run("SELECT n FROM event WHERE host_id = ? AND n > ? ORDER BY n", fields["host"], n):
            fields = {**self.body(later), "seq": fields["seq"] + 1, "prev": digest(canonical(fields))}
            followed.append((later, fields))
        for later, fields in reversed(followed):
            self.write(later, fields)

    def regrow(self, key: SigningKey | None = None, beyond: int = 0) -> None:
        """Make leaves and stored nodes of the rows as they are; with a key, checkpoints of the same sizes ``beyond`` that too."""
        rows = self.run(
            "SELECT event.n, received_at, body FROM event LEFT JOIN leaf ON leaf.n = event.n ORDER BY leaf.idx, event.n"
        )
        leaves = [leaf_hash(leaf_data(n, at, bytes(body))) for n, at, body in rows]
        sizes = [size for (size,) in self.run("SELECT size FROM checkpoint ORDER BY size") if size > beyond]
        self.run("DELETE FROM leaf")
        self.run("DELETE FROM node")
        for index, ((n, _, _), leaf) in enumerate(zip(rows, leaves, strict=True)):
            self.run("INSERT INTO leaf VALUES (?, ?, ?)", index, n, leaf)
        for node in Frontier().extend(leaves):
            self.run("INSERT INTO node VALUES (?, ?, ?)", *node)
        if key is not None:
            for size in sizes:
                self.sign(size, leaves[:size], key)

    def sign(self, size: int, leaves: list[bytes], key: SigningKey) -> None:
        """Put a checkpoint of these leaves in the place of the one of that size."""
        tree = Frontier()
        tree.extend(leaves)
        text = Checkpoint(key.verifying_key.name, size, tree.root()).text()
        note = seal(text, key.verifying_key, key.sign(text.encode()))
        self.run("DELETE FROM checkpoint WHERE size = ?", size)
        self.run("INSERT INTO checkpoint VALUES (?, ?, ?, 0, 0)", size, tree.root(), note)


def columns(fields: dict[str, Any]) -> tuple[Any, ...]:
    """Return the columns that repeat an event, as the table has them."""
    ids = (bytes.fromhex(fields["event_id"]), fields["host"], bytes.fromhex(fields["epoch"]), fields["seq"])
    return *ids, bytes.fromhex(fields["prev"]), bytes.fromhex(fields["reservation"]), fields["kind"]
