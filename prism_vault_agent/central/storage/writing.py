"""What writing asks of a database beyond SQL that both speak; ``sqlite.py`` and ``postgres.py`` answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Table
    from sqlalchemy.engine.interfaces import DBAPICursor

    from prism_vault_agent.central.storage.statements import Found


class Writing(Protocol):
    """One kind of database, as its writer needs it. Every method but ``probe`` runs within the writer's transaction."""

    def numbers(self, cursor: DBAPICursor, expected: int) -> Iterator[int]:
        """Return indexes ``n`` for new events, rising, never given twice; about ``expected`` of them will be taken."""

    def of_reservations(self, cursor: DBAPICursor, reservations: Sequence[bytes]) -> list[Found]:
        """Return every row of these reservations, by ``n``."""

    def unsequenced(self, cursor: DBAPICursor, floor: int, most: int) -> list[tuple[int, bytes]]:
        """Return ``n`` and leaf hash of the first ``most`` events above ``floor`` that have no leaf, by ``n``."""

    def insert(self, cursor: DBAPICursor, table: Table, rows: Sequence[Sequence[object]]) -> None:
        """Insert rows, each with all columns of ``table`` in their order. Raises the driver's errors."""

    def drop(self, cursor: DBAPICursor, by_n: int, rows: Sequence[tuple[int, bytes]], terms: Sequence[tuple[int, int]]) -> None:
        """Empty the bodies of ``rows`` (``n``, SHA-256 of the body) for the event ``by_n``, and remove ``terms`` (term, ``n``).

        Raises the driver's errors; those of a row that may not be dropped among them (migration 0003).
        """

    def highest(self, cursor: DBAPICursor) -> tuple[int, int]:
        """Return the highest ``n`` that was given so far, and a mark of this moment."""

    def settled(self, cursor: DBAPICursor, mark: int) -> bool:
        """Tell whether every transaction that took a number before ``mark`` has ended, one way or the other."""

    def alone(self, cursor: DBAPICursor, what: int) -> bool:
        """Take the lock ``what`` until the transaction ends, and tell whether it was free."""

    def in_turn(self, cursor: DBAPICursor, what: int) -> None:
        """Wait for the lock ``what``, and keep it until the transaction ends."""

    def renew(self, cursor: DBAPICursor, hosts: Sequence[str], epochs: Sequence[bytes], until: int) -> list[tuple[str, bytes]]:
        """Let those of these hosts' names that one of these epochs has be kept ``until`` then; return them, with their epochs.

        Up to 200 of them, each with its own epoch.
        """

    def tell(self, cursor: DBAPICursor, channel: str) -> None:
        """Wake whoever listens on ``channel`` in any replica, once the transaction is durable."""

    def again(self, error: Exception) -> bool:
        """Tell whether the transaction lost against another one, so that the same works may succeed now."""

    def probe(self, connection: Connection) -> None:
        """Write durably, in a transaction that is open. Raises the driver's errors."""
