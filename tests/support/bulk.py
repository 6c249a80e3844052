"""A large log made fast: rows as hosts and central would have made them, with their terms, leaves, nodes and checkpoints.

Rows are inserted past central and its guards, many at once; everything in them is true, so that the log verifies.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg

from prism_vault_agent.audit.event import FIRST
from prism_vault_agent.central.log.terms import terms
from prism_vault_agent.central.storage.postgres import is_postgres
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import Frontier, leaf_hash
from prism_vault_agent.proof.note import Checkpoint, seal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prism_vault_agent.proof.keys import SigningKey

AT_ONCE = 20_000
CHECKPOINT_EVERY = 1_000
BEGAN = 1_700_000_000_000  # the time of the first row, milliseconds since 1970
EVERY_MS = 10
HOSTS, SCOPES, PROJECTS, PURPOSES, RUNS = 400, 60, 8, 5, 3_000
KINDS = ("reserved", "success", "cleared")


@dataclass(slots=True)
class _Host:
    name: str
    epoch: str
    seq: int = 0
    prev: str = FIRST
    reservation: str = ""
    about: dict[str, Any] = field(default_factory=dict)


def events(count: int) -> Iterator[tuple[tuple[Any, ...], set[int]]]:
    """Yield rows of ``event`` with their terms: in turn each host's reservation, its success, and its end."""
    hosts = [_Host(f"server{number}", f"{number:032x}") for number in range(HOSTS)]
    for n in range(1, count + 1):
        place = (n - 1) % HOSTS
        host = hosts[place]
        kind = KINDS[host.seq % 3]
        at = BEGAN + n * EVERY_MS
        event_id = f"{at:012x}7000a{n:015x}"
        if kind == "reserved":
            host.reservation = f"{at:012x}7000b{n:015x}"
            run = f"run-{n // 7 % RUNS}" if n % 7 == 0 else None
            host.about = {
                "project": f"project{place % PROJECTS}",
                "scopes": [f"scope{(place + host.seq) % SCOPES}"],
                "purpose": f"purpose{place % PURPOSES}",
                "run_ref": run,
            }
        body = _body(host, kind, at, event_id)
        said = host.about if kind == "reserved" else {name: host.about[name] for name in ("project", "scopes", "run_ref")}
        host.seq += 1
        row = (
            *(n, bytes.fromhex(event_id), host.name, bytes.fromhex(host.epoch), host.seq, bytes.fromhex(host.prev)),
            *(bytes.fromhex(host.reservation), kind, at, body),
        )
        host.prev = hashlib.sha256(body).hexdigest()
        yield row, terms(kind, host.name, said)


def _body(host: _Host, kind: str, at: int, event_id: str) -> bytes:
    """Return what ``audit.event.canonical`` would, in a fifth of the time."""
    project, run, scope = host.about["project"], host.about["run_ref"], host.about["scopes"][0]
    caller = purpose = ""
    if kind == "reserved":
        caller = (
            '"caller":{"executable":"/usr/bin/python3.11","gid":1000,"guarantee":"pidfd","kind":"service","pid":4242,"uid":1000},'
        )
        purpose = f'"purpose":"{host.about["purpose"]}",'
    return (
        f'{{"at":{at},"boot_ms":{at - BEGAN},{caller}"environment":"lan","epoch":"{host.epoch}","event_id":"{event_id}",'
        f'"host":"{host.name}","job_id":null,"kind":"{kind}","prev":"{host.prev}","project":"{project}",{purpose}'
        f'"reservation":"{host.reservation}","run_ref":{json.dumps(run)},"scopes":["{scope}"],"seq":{host.seq + 1},"v":1}}'
    ).encode()


def fill(database: str, owner: str, count: int, key: SigningKey) -> None:
    """Put a log of ``count`` rows into a migrated database; ``owner`` is the URL of a PostgreSQL superuser."""
    with _Postgres(owner) if is_postgres(database) else _Sqlite(database) as tables:
        tree = Frontier()
        made = events(count)
        while some := list(islice(made, AT_ONCE)):
            rows = [row for row, _ in some]
            leaves = [leaf_hash(leaf_data(row[0], row[8], row[9])) for row in rows]
            first = tree.size
            tables.insert("event", rows)
            tables.insert("term", sorted((term, row[0]) for row, found in some for term in found))
            tables.insert("leaf", [(first + at, row[0], leaf) for at, (row, leaf) in enumerate(zip(rows, leaves, strict=True))])
            for at in range(0, len(leaves), CHECKPOINT_EVERY):
                tables.insert("node", tree.extend(leaves[at : at + CHECKPOINT_EVERY]))
                text = Checkpoint(key.verifying_key.name, tree.size, tree.root()).text()
                note = seal(text, key.verifying_key, key.sign(text.encode()))
                tables.insert("checkpoint", [(tree.size, tree.root(), note, tree.size, BEGAN + tree.size * EVERY_MS)])


def double(database: str, owner: str, count: int, place: int) -> None:
    """Copy each row of a log of ``count`` rows behind the last one: a log to be looked for in, not one that verifies.

    The copies have numbers, times, ids and epochs of their own, which differ in the byte at ``place``: one of 7, 9, 10, 11, 12.
    """
    with _Postgres(owner) if is_postgres(database) else _Sqlite(database) as tables:
        event_id, epoch, reservation = (tables.other(name, place) for name in ("event_id", "host_epoch", "reservation_id"))
        for low in range(0, count, AT_ONCE):
            window = f"WHERE n > {low} AND n <= {min(low + AT_ONCE, count)} ORDER BY n"
            tables.run(
                f"INSERT INTO event SELECT n + {count}, {event_id}, host_id, {epoch}, host_seq, prev_hash, {reservation}, kind, "
                f"received_at + {count * EVERY_MS}, body FROM event {window}"
            )
            tables.run(f"INSERT INTO leaf SELECT idx + {count}, n + {count}, hash FROM leaf {window}")
        tables.run(f"INSERT INTO term SELECT term, n + {count} FROM term")
        tables.insert("checkpoint", [(2 * count, bytes(32), "of copies", 2 * count, BEGAN + 2 * count * EVERY_MS)])


class _Sqlite:
    """A file, without its guards while it is written."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -400000", "locking_mode = EXCLUSIVE"):
            self._database.execute(f"PRAGMA {pragma}")
        self._guards = self._database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in self._guards:
            self._database.execute(f"DROP TRIGGER {name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for _, text in self._guards:
            self._database.execute(text)
        self._database.execute("PRAGMA analysis_limit = 1000")
        self._database.execute("ANALYZE")
        self._database.close()

    def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._database.execute("BEGIN")
            self._database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
            self._database.execute("COMMIT")

    def run(self, statement: str) -> None:
        self._database.execute(statement)

    def other(self, column: str, place: int) -> str:
        return f"CAST(substr({column}, 1, {place}) || x'01' || substr({column}, {place + 2}) AS BLOB)"


class _Postgres:
    """A database of a server."""

    def __init__(self, owner: str) -> None:
        self._connection = psycopg.connect(owner, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.execute("SELECT setval('event_n_seq', (SELECT max(n) FROM event))")
        self._connection.execute("VACUUM ANALYZE")
        self._connection.close()

    def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(TYPES[table])
            for row in rows:
                copy.write_row(row)

    def run(self, statement: str) -> None:
        self._connection.execute(statement)

    def other(self, column: str, place: int) -> str:
        return f"set_byte({column}, {place}, 1)"


TYPES = {
    "event": ("int8", "bytea", "text", "bytea", "int8", "bytea", "bytea", "text", "int8", "bytea"),
    "term": ("int8", "int8"),
    "leaf": ("int8", "int8", "bytea"),
    "node": ("int8", "int8", "bytea"),
    "checkpoint": ("int8", "bytea", "text", "int8", "int8"),
}


def large(directory: Path, count: int, key: SigningKey) -> Path:
    """Make a file of ``count`` rows, and return its path."""
    from prism_vault_agent.central.storage.engines import migrate  # noqa: PLC0415 - half a second that readers do without

    path = directory / "large.db"
    migrate(str(path))
    fill(str(path), "", count, key)
    return path
