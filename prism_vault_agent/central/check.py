"""Is a copy of the log whole? Its chains, leaves, tree and the signature on its newest checkpoint, from the copy alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect, text
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.audit.event import FIRST, digest
from prism_vault_agent.central.storage.tree import fetch
from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof.leaf import leaf_data
from prism_vault_agent.proof.merkle import Frontier, leaf_hash
from prism_vault_agent.proof.note import open_checkpoint
from prism_vault_agent.proof.tiles import root_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from prism_vault_agent.central.backup import Say
    from prism_vault_agent.proof.keys import VerifyingKey

ROWS_AT_ONCE: Final = 5_000
MEND: Final = "keep it as it is, and compare it with an older backup and with the agents' heads"


def check(engine: Engine, key: VerifyingKey | None, say: Say) -> int:
    """Return how many events a copy has. Raises :class:`IntegrityError` naming the first bad index where it is not whole.

    ``key`` verifies the newest checkpoint; without one, as before the first checkpoint, there may be none.
    """
    try:
        with engine.connect() as connection:
            there = set(inspect(connection).get_table_names())
            if engine.dialect.name == "sqlite":
                found = connection.execute(text("PRAGMA integrity_check(1)")).scalar()
                if found != "ok":
                    raise IntegrityError("the file is damaged", mend=MEND)
            count = _chains(connection, there, say)
            if "leaf" in there:
                _tree(connection, key)
            return count
    except SQLAlchemyError as error:
        raise IntegrityError(f"the copy cannot be read ({type(error).__name__})", mend=MEND) from None


def _chains(connection: Connection, there: set[str], say: Say) -> int:
    """Check that each event's bytes are those that its leaf and the next event of its host are made of."""
    leaf = "l.hash" if "leaf" in there else "NULL"
    hashed = "d.hash" if "dropped" in there else "NULL"
    joins = " LEFT JOIN leaf l ON l.n = e.n" if "leaf" in there else ""
    joins += " LEFT JOIN dropped d ON d.n = e.n" if "dropped" in there else ""
    # By place in the chains: with several replicas, `n` is not the order in which the events of one host arrived.
    question = text(
        f"SELECT e.n, e.host_id, e.host_epoch, e.host_seq, e.prev_hash, e.received_at, e.body, {leaf}, {hashed} "  # noqa: S608 - names of ours
        f"FROM event e{joins} ORDER BY e.host_id, e.host_epoch, e.host_seq"
    )
    bad: list[tuple[int, str]] = []
    before: tuple[Any, ...] = ("", b"", 0, FIRST, 0)
    count = 0
    for row in _rows(connection, question):
        n, host, epoch, seq, prev, received_at, body, leaf_of, was = row
        if not isinstance(body, bytes | memoryview):
            raise IntegrityError(f"first bad index {n}: its body is not bytes", mend=MEND)
        body = bytes(body)
        if (was is not None) != (body == b""):
            bad.append((n, "its body is missing, or is there although it was dropped"))
        hash_of = digest(body) if was is None else bytes(was).hex()
        if leaf_of is not None and was is None and bytes(leaf_of) != leaf_hash(leaf_data(n, received_at, body)):
            bad.append((n, "its bytes are not those of its leaf"))
        same = before[:2] == (host, bytes(epoch))
        expected = (before[2] + 1, before[3]) if same else (1, FIRST)
        if (seq, bytes(prev).hex()) != expected:
            bad.append((n, f"it does not continue the chain of host {host}"))
        before = (host, bytes(epoch), seq, hash_of, n)
        count += 1
        if count % ROWS_AT_ONCE == 0:
            say(f"checking: {count} events")
    if bad:
        n, what = min(bad)
        raise IntegrityError(f"the log is not whole: first bad index {n}: {what}", mend=MEND)
    return count


def _tree(connection: Connection, key: VerifyingKey | None) -> None:
    """Check that the leaves are contiguous and have events, and that the newest checkpoint signs their root."""
    tree = Frontier()
    row = connection.execute(text("SELECT size, root, note FROM checkpoint ORDER BY size DESC LIMIT 1")).first()
    question = text("SELECT leaf.idx, leaf.hash, event.n FROM leaf LEFT JOIN event ON event.n = leaf.n ORDER BY leaf.idx")
    signed: bytes | None = None
    for index, (idx, hashed, n) in enumerate(_rows(connection, question)):
        if idx != index or n is None:
            raise IntegrityError(f"the log is not whole: leaf {index} is missing, or its event is", mend=MEND)
        tree.append(bytes(hashed))
        if row is not None and tree.size == row.size:
            signed = tree.root()
    if root_of(tree.size, partial(fetch, connection.connection.cursor())) != tree.root():
        raise IntegrityError("the log is not whole: its stored tree is not that of its leaves", mend=MEND)
    if row is None:
        return
    if signed is None or signed != bytes(row.root):
        raise IntegrityError(f"the log is not whole: its first {row.size} leaves are not those of its checkpoint", mend=MEND)
    if key is not None:
        checkpoint = open_checkpoint(row.note, key.name, key)
        if (checkpoint.size, checkpoint.root) != (row.size, signed):
            raise IntegrityError("the newest checkpoint's note is about another tree", mend=MEND)


def _rows(connection: Connection, question: Any) -> Iterator[Any]:
    for some in connection.execution_options(yield_per=ROWS_AT_ONCE).execute(question).partitions():
        yield from some
