"""The log as JSON lines: one for each row, as ``GET /v1/audit/log`` has it, in its final order, and one with the checkpoint.

The last line is ``{"checkpoint": {"size": N, "note": "..."}}``, about exactly the rows before it. An export without it was cut.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.central.verification.quick_json import dumps, loads
from prism_vault_agent.central.verification.row import Looked, look
from prism_vault_agent.central.verification.tree import Sealed
from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.proof.note import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

AT_ONCE: Final = 2_048
CUT: Final = b""  # no line of a file is empty: it has its end
WAS_CUT: Final = "the export was cut: its last line has no checkpoint"
CLOSING: Final = b'{"checkpoint":'


def row_line(row: Mapping[str, Any]) -> bytes:
    """Return a row as a line."""
    return dumps(row) + b"\n"


def closing_line(size: int, note: str) -> bytes:
    """Return the line that ends an export of ``size`` rows."""
    return dumps({"checkpoint": {"size": size, "note": note}}) + b"\n"


def sealed(size: int, note: str, where: str) -> Sealed:
    """Return a checkpoint of which only the note is there."""
    try:
        root = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n").root
    except IntegrityError:
        root = b""  # whoever checks it tells what is wrong with the note
    return Sealed(size, root, note, where)


def look_at_plain(rows: Iterable[Mapping[str, Any]]) -> list[Looked]:
    """Look at rows as JSON has them."""
    return look(map(_row, rows))


def look_at_lines(lines: Iterable[bytes]) -> list[Looked]:
    """Look at the lines of an export."""
    return look(_row(_parsed(line)) if line else WAS_CUT for line in lines)


class Export:
    """An export, read once from its beginning to its end."""

    look = staticmethod(look_at_lines)

    def __init__(self, lines: Iterable[bytes]) -> None:
        """Read ``lines``."""
        self._lines = iter(lines)
        self._sealed: Sealed | None = None

    def expected(self) -> int:
        """Return 0: that is not known before the end."""
        return 0

    def parts(self) -> Iterator[list[bytes]]:
        """Yield all lines but the last; where that is missing, an empty one that is no row."""
        while lines := list(islice(self._lines, AT_ONCE)):
            if lines[-1].startswith(CLOSING):
                self._sealed = _closing(lines.pop())
            if lines:
                yield lines
        if self._sealed is None:
            yield [CUT]

    def checkpoints(self) -> Iterator[Sealed]:
        """Yield nothing: the checkpoint comes last."""
        return iter(())

    def nodes(self) -> Mapping[int, Iterator[tuple[int, bytes]]]:
        """Return nothing: an export has no stored nodes."""
        return {}

    def unguarded(self) -> list[str]:
        """Return nothing: an export has no guards."""
        return []

    def seal(self) -> Sealed | None:
        """Return the checkpoint of the last line."""
        return self._sealed


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        row = loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _closing(line: bytes) -> Sealed | None:
    try:
        checkpoint = loads(line)["checkpoint"]
        return sealed(int(checkpoint["size"]), str(checkpoint["note"]), "the export")
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _row(plain: Mapping[str, Any]) -> tuple[Any, ...]:
    get = plain.get
    dropped = get("dropped_by")
    try:
        return (
            *(get("index"), get("n"), None if get("leaf") is None else bytes.fromhex(plain["leaf"])),
            bytes.fromhex(plain["event_id"]),
            plain["host_id"].encode("utf-8", "surrogateescape"),
            bytes.fromhex(plain["host_epoch"]),
            plain["host_seq"],
            bytes.fromhex(plain["prev_hash"]),
            bytes.fromhex(plain["reservation_id"]),
            plain["kind"].encode("utf-8", "surrogateescape"),
            plain["received_at"],
            plain["body"].encode("utf-8", "surrogatepass"),
            *(dropped, None if dropped is None else bytes.fromhex(plain["hash"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return get("index"), get("n"), _leaf(get("leaf")), None if "event_id" not in plain else b"", *[None] * 10


def _leaf(text: Any) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        return None
