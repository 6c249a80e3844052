"""PostgreSQL as the log's database: its roles, the settings of every connection, and what a writer among others does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import errors, sql
from sqlalchemy import BigInteger, LargeBinary, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from prism_vault_agent.central.config import POSTGRESQL
from prism_vault_agent.central.storage.statements import OF_RESERVATIONS, RENEW, UNSEQUENCED, Found
from prism_vault_agent.errors import AuditUnavailable, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine, Table
    from sqlalchemy.engine.interfaces import DBAPICursor

OWNER: Final = "prism_vault_audit_owner"
# A question walks along one index and looks up the rest by key. Other joins read as many rows as lie between: few in a young log.
PLANNER: Final = "-c enable_hashjoin=off -c enable_mergejoin=off"
# No open transaction of ours may hold others back: a statement has 10 s, a pause within a transaction 5 s, a lock 5 s.
_EVERY_CONNECTION: Final = (
    "-c statement_timeout=10s -c idle_in_transaction_session_timeout=5s -c lock_timeout=5s"
    f" -c synchronous_commit=on -c search_path=public -c client_encoding=UTF8 {PLANNER}"
)
# proof/leaf.py and proof/merkle.leaf_hash, in the server's words
_LEAF: Final = r"sha256('\x00'::bytea || int8send(n) || int8send(received_at) || body)"
# The last one tells whether the settings above reached the server at all: a pool between may keep them.
_SURVIVE: Final = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "statement_timeout": "10s"}


def is_postgres(database: str) -> bool:
    """Tell whether the setting names a PostgreSQL database; else it is the path of a file."""
    return database.startswith(POSTGRESQL)


def writing_engine(database: str) -> Engine:
    """Return an engine of one connection for transactions that write."""
    return _engine(database, size=1)


def reading_engine(database: str, size: int) -> Engine:
    """Return an engine of ``size`` connections that cannot write."""
    return _engine(database, " -c default_transaction_read_only=on", size=size)


def service_role(database: str) -> str:
    """Return the role that central serves as. Raises :class:`ConfigError` for a URL that names none, or holds a password."""
    url = make_url(database)
    if not url.username:
        raise ConfigError("the database's URL names no role", mend="write postgresql://ROLE@HOST/DATABASE")
    if url.password is not None:
        raise ConfigError("a password does not belong into the configuration", mend="put it into a passfile: ?passfile=FILE")
    return url.username


def prepare(connection: Connection, service: str) -> None:
    """Make the two roles where they are missing, and become the owner, who cannot log in, for this transaction."""
    raw = _raw(connection)
    for role, login in ((OWNER, "NOLOGIN"), (service, "LOGIN")):
        raw.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
        if raw.fetchone() is None:
            raw.execute(
                sql.SQL("CREATE ROLE {} {} NOSUPERUSER NOCREATEROLE NOCREATEDB").format(sql.Identifier(role), sql.SQL(login))
            )
    raw.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(OWNER)))
    raw.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(sql.Identifier(OWNER)))
    raw.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(OWNER)))


def grant(connection: Connection, service: str) -> None:
    """Let the service read and insert, have bodies dropped by the owner's rules, and change who is present; nothing else."""
    raw = _raw(connection)
    role = sql.Identifier(service)
    raw.execute(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {}, PUBLIC").format(role))
    raw.execute(sql.SQL("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {}").format(role))
    raw.execute(sql.SQL("REVOKE INSERT ON alembic_version FROM {}").format(role))
    raw.execute("SELECT to_regclass('dropped') IS NOT NULL")
    if raw.fetchone()[0]:  # a backup may be restored at an older version of the schema
        raw.execute(sql.SQL("REVOKE INSERT ON dropped FROM {}").format(role))
        raw.execute(sql.SQL("GRANT EXECUTE ON FUNCTION drop_bodies TO {}").format(role))
    raw.execute("SELECT to_regclass('presence') IS NOT NULL")
    if raw.fetchone()[0]:
        raw.execute(sql.SQL("GRANT UPDATE ON presence TO {}").format(role))
    raw.execute(sql.SQL("GRANT USAGE, SELECT ON SEQUENCE event_n_seq TO {}").format(role))


def require_durable(engine: Engine) -> None:
    """Raise :class:`ConfigError` where the server acknowledges what a power cut can take back."""
    try:
        with engine.connect() as connection:
            found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in _SURVIVE}
    except SQLAlchemyError as error:
        raise AuditUnavailable(
            f"the database cannot be reached ({type(error).__name__})", mend="check its URL and state"
        ) from None
    for name, needed in _SURVIVE.items():
        if found[name] != needed:
            raise ConfigError(
                f"the PostgreSQL server runs with {name}={found[name]}",
                mend=f"set {name} = {needed} there, and let no pool keep central's own settings from it",
            )


class PostgresWriting:
    """What one of several writers of a PostgreSQL database does."""

    def __init__(self) -> None:
        """Remember the text of each insert."""
        self._inserts: dict[str, str] = {}

    def numbers(self, cursor: DBAPICursor, expected: int) -> Iterator[int]:
        """Take numbers from the sequence, as many at once as are likely to be needed.

        The transaction gets its own id before its first number: ``settled`` relies on that.
        """
        while True:
            cursor.execute(
                "SELECT CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('event_n_seq') END FROM generate_series(1, %s)",
                (expected,),
            )
            yield from (row[0] for row in cursor.fetchall())
            expected *= 2

    def of_reservations(self, cursor: DBAPICursor, reservations: Sequence[bytes]) -> list[Found]:
        """Return the rows of these reservations."""
        cursor.execute(OF_RESERVATIONS.format("= ANY(%b)"), (list(reservations),))
        return [Found(*row) for row in cursor.fetchall()]

    def unsequenced(self, cursor: DBAPICursor, floor: int, most: int) -> list[tuple[int, bytes]]:
        """Return the next events without a leaf. The server hashes them, so that their bytes need not travel."""
        cursor.execute(UNSEQUENCED.format(f"n, {_LEAF}", "%s", "%s"), (floor, most))
        return list(cursor.fetchall())

    def insert(self, cursor: DBAPICursor, table: Table, rows: Sequence[Sequence[object]]) -> None:
        """Insert rows in one statement, each with all columns of ``table`` in their order. Raises the driver's errors."""
        if table.name not in self._inserts:
            columns = ", ".join(column.name for column in table.columns)
            arrays = ", ".join(f"%b::{_type(column.type)}[]" for column in table.columns)
            self._inserts[table.name] = f"INSERT INTO {table.name} ({columns}) SELECT * FROM unnest({arrays})"  # noqa: S608 - names of ours
        cursor.execute(self._inserts[table.name], [list(column) for column in zip(*rows, strict=True)])

    def drop(self, cursor: DBAPICursor, by_n: int, rows: Sequence[tuple[int, bytes]], terms: Sequence[tuple[int, int]]) -> None:
        """Have the owner's function do it, which hashes the bodies itself: the service may change no row."""
        numbers = [n for n, _ in rows]
        columns = [list(column) for column in zip(*terms, strict=True)] or [[], []]
        cursor.execute("SELECT drop_bodies(%s, %s::bigint[], %s::bigint[], %s::bigint[])", (by_n, numbers, *columns))

    def highest(self, cursor: DBAPICursor) -> tuple[int, int]:
        """Return the last number of the sequence, and our own transaction id, which is above that of whoever took one before."""
        cursor.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM event_n_seq")
        n = int(cursor.fetchall()[0][0])
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        return n, int(cursor.fetchall()[0][0])

    def settled(self, cursor: DBAPICursor, mark: int) -> bool:
        """Tell whether every transaction with an id below ``mark`` has ended."""
        cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= %s", (mark,))
        return bool(cursor.fetchall()[0][0])

    def alone(self, cursor: DBAPICursor, what: int) -> bool:
        """Take an advisory lock until the transaction ends, and tell whether it was free."""
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (what,))
        return bool(cursor.fetchall()[0][0])

    def in_turn(self, cursor: DBAPICursor, what: int) -> None:
        """Wait for an advisory lock, and keep it until the transaction ends."""
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (what,))

    def renew(self, cursor: DBAPICursor, hosts: Sequence[str], epochs: Sequence[bytes], until: int) -> list[tuple[str, bytes]]:
        """Let names be kept until then."""
        cursor.execute(RENEW.format("= ANY(%s)", "= ANY(%b)", "%s"), (until, list(hosts), list(epochs)))
        return list(cursor.fetchall())

    def tell(self, cursor: DBAPICursor, channel: str) -> None:
        """Notify whoever listens on ``channel``, once the transaction is durable."""
        cursor.execute("SELECT pg_notify(%s, '')", (channel,))

    def again(self, error: Exception) -> bool:
        """Tell whether another replica was faster with the same event, or the server chose us to end a deadlock."""
        return isinstance(error, errors.IntegrityError | errors.DeadlockDetected | errors.SerializationFailure)

    def probe(self, connection: Connection) -> None:
        """Write nothing but the transaction's own id, which is made durable like any row."""
        connection.exec_driver_sql("SELECT pg_current_xact_id()")


def _engine(database: str, more: str = "", *, size: int) -> Engine:
    url = make_url(database).set(drivername="postgresql+psycopg")
    return create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=5,
        pool_recycle=600,
        isolation_level="READ COMMITTED",
        hide_parameters=True,  # error texts would quote rows
        connect_args={
            "connect_timeout": 5,
            "application_name": "prism-vault central",
            "options": _EVERY_CONNECTION + more,
            "tcp_user_timeout": 10_000,
        },
    )


def _type(kind: object) -> str:
    return "bigint" if isinstance(kind, BigInteger) else "bytea" if isinstance(kind, LargeBinary) else "text"


def _raw(connection: Connection) -> Any:
    """Return a cursor of the driver on the connection's transaction."""
    return connection.connection.cursor()
