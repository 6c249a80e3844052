"""What one row of the log shows by itself: canonical bytes, columns that repeat them, and the hash of its leaf. Pure.

Most of a verification's time is spent here: rows are looked at by the thousand, where there are processors in others' processes.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prism_vault_agent.central.config import OWN_HOST
from prism_vault_agent.central.log.remains import Remains, remains_line
from prism_vault_agent.central.verification.forms import FIELDS, Forms
from prism_vault_agent.central.verification.quick_json import canonical_fields
from prism_vault_agent.proof.leaf import row_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

# The columns of the row that its bytes repeat, each in the field of ``FIELDS`` at its place.
COLUMNS: Final = ("event_id", "host_id", "host_epoch", "host_seq", "prev_hash", "reservation_id", "kind")
_SAID: Final = itemgetter(*FIELDS)
_forms: Final = Forms()  # each process learns them anew
Chain = tuple[str, str]
LARGEST: Final = 2**63  # what a database can count to
NO_CHAIN: Final[Chain] = ("", "")
_INDEX: Final = (int, type(None))
_TYPES: Final = (str, str, str, int, str, str, str)
_KIND: Final = 6

NO_EVENT: Final = "its leaf is there, and no event"
NOT_COLUMNS: Final = "its columns do not hold what they must"
NOT_ITS_LEAF: Final = "it is not what its leaf is the hash of"
NOT_CANONICAL: Final = "its bytes are not a canonical event"
EMPTY: Final = "its bytes are gone, and nothing on the log has dropped them"
STILL_THERE: Final = "its bytes are there, and are said to have been dropped"


class Row(NamedTuple):
    """A row as it was read. ``idx`` and ``leaf`` are None before it has its leaf, ``event_id`` where there is only a leaf.

    ``by`` is the event that dropped the body, which is empty then, and ``was`` the hash of what it was.
    """

    idx: int | None
    n: int
    leaf: bytes | None
    event_id: bytes | None
    host_id: bytes
    host_epoch: bytes
    host_seq: int
    prev_hash: bytes
    reservation_id: bytes
    kind: bytes
    received_at: int
    body: bytes
    by: int | None = None
    was: bytes | None = None


# What a row has to do with dropped bodies. Its own is gone: the event that dropped it, and the line that remains. Or it dropped
# others': None, an empty line, how many, and the hash of their lines.
Dropping = tuple[int | None, bytes, int, str]

# What the checks across rows need of one, and what is wrong with it by itself, or nothing:
# idx, n, leaf, chain, seq, prev, hash, reservation, kind, wrong, dropping.
# The chain is host and epoch, or NO_CHAIN where there is no event; the hash is that of its bytes. Where those are canonical, all
# of it is what they say, whatever the columns do. n is 0 where it cannot be told: then it is behind the row before. These are
# plain tuples, because they go from process to process as marshal writes them.
Looked = tuple[int | None, int, bytes | None, Chain, int, str, str, str, str, str, Dropping | None]


def look(rows: Iterable[tuple[Any, ...] | str]) -> list[Looked]:
    """Look at each row by itself; the rows are as :class:`Row` has them, or say why there cannot be one."""
    looked: list[Looked] = []
    for row in rows:
        try:
            looked.append(_look_at_event(row))  # type: ignore[arg-type]  # a text is no row: the last of the errors below
        except (AttributeError, TypeError, ValueError, struct.error):
            looked.append(_look_at_what_is_none(row))
    return looked


def _look_at_what_is_none(row: tuple[Any, ...] | str) -> Looked:
    if isinstance(row, str):
        return None, 0, None, NO_CHAIN, 0, "", "", "", "", row, None
    idx, n, leaf, event_id, *_ = row
    wrong = NO_EVENT if event_id is None else NOT_COLUMNS
    idx, n = (idx if type(idx) is int else None), (n if type(n) is int and 0 < n < LARGEST else 0)
    return idx, n, leaf, NO_CHAIN, 0, "", "", "", "", wrong, None


def _look_at_event(row: tuple[Any, ...]) -> Looked:
    idx, n, leaf, event_id, host_id, host_epoch, host_seq, prev_hash, reservation_id, kind, received_at, body, by, was = row
    if type(n) is not int or not 0 < n < LARGEST or type(host_seq) is not int or type(idx) not in _INDEX:
        raise TypeError
    columns: tuple[Any, ...] = (
        event_id.hex(),
        host_id.decode("utf-8", "surrogateescape"),
        host_epoch.hex(),
        host_seq,
        prev_hash.hex(),
        reservation_id.hex(),
        kind.decode("utf-8", "surrogateescape"),
    )
    wrong = ""
    hashed = sha256(body).hexdigest()
    said = _said(body, columns[_KIND]) if body else None
    if not body and by is not None and was is not None:
        return _look_at_remains(row, columns)
    if not body:
        said, wrong = columns, EMPTY
    elif leaf is not None and row_hash(n, received_at, body) != leaf:
        wrong = NOT_ITS_LEAF
    if said is None:
        said, wrong = columns, NOT_CANONICAL
    elif said != columns:
        first = next(at for at in range(len(COLUMNS)) if said[at] != columns[at])
        wrong = f"its column {COLUMNS[first]} is not what its bytes say"
    elif by is not None and body:
        wrong = STILL_THERE
    _, host, epoch, seq, prev, reservation, what = said
    dropping = _dropping(body) if host == OWN_HOST and what == "admin" and not wrong else None
    return idx, n, leaf, (host, epoch), seq, prev, hashed, reservation, what, wrong, dropping


def _look_at_remains(row: tuple[Any, ...], columns: tuple[Any, ...]) -> Looked:
    """Look at a row whose body was dropped."""
    idx, n, leaf, *_, received_at, _body, by, was = row
    _, host, epoch, seq, prev, reservation, kind = columns
    line = remains_line(Remains._make((n, received_at, *columns, was.hex())))
    return idx, n, leaf, (host, epoch), seq, prev, was.hex(), reservation, kind, "", (by, line, 0, "")


def _dropping(body: bytes) -> Dropping | None:
    """Return what an event of central's says that it dropped, or None for one about something else."""
    fields = canonical_fields(body)
    if "dropped" not in fields or "remains" not in fields:
        return None
    return None, b"", int(fields["dropped"]), str(fields["remains"])


def _said(body: bytes, kind: str) -> tuple[Any, ...] | None:
    """Return what the bytes say for each of the columns, or None where they are not an event in canonical form."""
    if (quick := _forms.said(body, kind)) is not None:
        return quick
    try:
        fields = canonical_fields(body)
        said: tuple[Any, ...] = _SAID(fields)
    except (ValueError, RecursionError, KeyError):
        return None
    if tuple(map(type, said)) != _TYPES:
        return None
    _forms.learn(fields, kind)
    return said
