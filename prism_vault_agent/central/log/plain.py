"""Rows of the log as JSON knows them: ids and hashes in hex, and the event's bytes as text, exactly as sent and hashed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prism_vault_agent.audit.event import digest

if TYPE_CHECKING:
    from sqlalchemy import Row


def plain(row: Row[Any]) -> dict[str, Any]:
    """Return a row of ``event`` beside what ``dropped`` says of it.

    ``dropped_by`` is None, or the index of the event that dropped the body, which is empty then; ``hash`` is that of what it was.
    """
    return {
        "n": row.n,
        "event_id": row.event_id.hex(),
        "host_id": row.host_id,
        "host_epoch": row.host_epoch.hex(),
        "host_seq": row.host_seq,
        "prev_hash": row.prev_hash.hex(),
        "kind": row.kind,
        "reservation_id": row.reservation_id.hex(),
        "received_at": row.received_at,
        "body": row.body.decode("utf-8", "replace"),
        "hash": hash_of(row),
        "dropped_by": row.by_n,
    }


def hash_of(row: Any) -> str:
    """Return the hash of a row's body as it was sent."""
    return digest(row.body) if row.hash is None else bytes(row.hash).hex()


def plain_leaf(row: Row[Any]) -> dict[str, Any]:
    """Return a row of ``event`` beside its leaf; of one that is missing, the leaf alone."""
    event = plain(row) if row.event_id is not None else {"n": row.leaf_n}
    return {"index": row.idx, "leaf": row.leaf_hash.hex(), **event}
