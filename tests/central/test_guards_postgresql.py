"""Whoever speaks to PostgreSQL, the service or a superuser in replica mode: no row of any table is changed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors, sql
from sqlalchemy.exc import DBAPIError

from prism_vault_agent.central.storage import postgres as storage
from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import prepare, reading_engine, writing_engine
from prism_vault_agent.central.storage.postgres import OWNER
from prism_vault_agent.errors import ConfigError
from tests.central.filled import ADMIN, GONE, NEW, OPEN, OVER, SUCCESS, fill
from tests.support.postgres import SERVICE, PostgresServer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.central.own_log import Databases

pytestmark = pytest.mark.tool("initdb")
TABLES = sorted(schema.metadata.tables)

CHANGES = {
    "update": "UPDATE {table} SET {column} = {column}",
    "delete": "DELETE FROM {table}",
    "truncate": "TRUNCATE {table}",
    "truncate with what refers to it": "TRUNCATE {table} RESTART IDENTITY CASCADE",
    "upsert": "INSERT INTO {table} SELECT * FROM {table} ON CONFLICT ({key}) DO UPDATE SET {column} = EXCLUDED.{column}",
    "merge that updates": (
        "MERGE INTO {table} AS t USING {table} AS s ON t.{first} = s.{first} WHEN MATCHED THEN UPDATE SET {column} = s.{column}"
    ),
    "merge that deletes": "MERGE INTO {table} AS t USING {table} AS s ON t.{first} = s.{first} WHEN MATCHED THEN DELETE",
}
# What would open a way, were it not for the owner alone.
DEFINITIONS = {
    "disable the guards": "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "disable the guards of users": "ALTER TABLE {table} DISABLE TRIGGER USER",
    "drop a guard": "DROP TRIGGER {guard} ON {table}",
    "add a trigger": "CREATE TRIGGER mine AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION append_only()",
    "add a rule": "CREATE RULE mine AS ON INSERT TO {table} DO INSTEAD NOTHING",
    "change a column": "ALTER TABLE {table} ADD COLUMN mine text",
    "drop a column": "ALTER TABLE {table} DROP COLUMN {column}",
    "rename": "ALTER TABLE {table} RENAME TO mine",
    "own": "ALTER TABLE {table} OWNER TO CURRENT_USER",
    "policies": "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
    "drop": "DROP TABLE {table} CASCADE",
    "lock": "DO $$ BEGIN LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; END $$",
    "lock against other inserts": "DO $$ BEGIN LOCK TABLE {table} IN SHARE MODE; END $$",
}
ROLES = {
    "become the owner": "SET ROLE prism_vault_audit_owner",
    "be granted the owner": "GRANT prism_vault_audit_owner TO prism_vault_central",
    "become a superuser": "ALTER ROLE prism_vault_central SUPERUSER",
    "make roles": "CREATE ROLE mine SUPERUSER LOGIN",
    "make tables": "CREATE TABLE public.mine (n bigint)",
    "make functions": "CREATE FUNCTION public.mine() RETURNS bigint LANGUAGE sql AS 'SELECT 1'",
    "replace the guards' function": (
        "CREATE OR REPLACE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    ),
    "drop the guards' function": "DROP FUNCTION append_only() CASCADE",
    "skip the guards": "SET session_replication_role = replica",
    "settings of the server": "ALTER SYSTEM SET fsync = off",
    "settings of the database": "ALTER DATABASE {database} SET synchronous_commit = off",
    "give numbers again": "SELECT setval('event_n_seq', 1)",
    "name a row as dropped": f"INSERT INTO dropped VALUES ({OVER}, {ADMIN}, '')",
    "another schema version": "INSERT INTO alembic_version VALUES ('9999')",
    "files of the server": "COPY event TO PROGRAM 'cat'",
    "read files of the server": "SELECT pg_read_file('PG_VERSION')",
}


@pytest.fixture(scope="module")
def url(postgresql_databases: Databases) -> str:
    """Return the service's URL of a database with rows in every table."""
    made = postgresql_databases.new()
    fill(made)
    return made


@pytest.fixture(params=["the service", "a superuser in replica mode"])
def anyone(request: pytest.FixtureRequest, url: str) -> Iterator[psycopg.Connection]:
    """Return a connection of the service, and of a superuser for whom ordinary triggers do not fire; rows stay as they were."""
    with connect(url, replica=request.param != "the service") as opened:
        yield from unchanged(opened)


@pytest.fixture
def service(url: str) -> Iterator[psycopg.Connection]:
    """Return a connection of the service; the rows stay as they were."""
    with connect(url) as opened:
        yield from unchanged(opened)


@pytest.fixture
def superuser(url: str) -> Iterator[psycopg.Connection]:
    """Return a connection of a superuser for whom ordinary triggers do not fire; the rows stay as they were."""
    with connect(url, replica=True) as opened:
        yield from unchanged(opened)


def connect(url: str, *, replica: bool = False) -> psycopg.Connection:
    """Return a connection without our settings."""
    opened = psycopg.connect(url.replace(SERVICE, "postgres") if replica else url, autocommit=True)
    if replica:
        opened.execute("SET session_replication_role = replica")
    return opened


def unchanged(opened: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Give a connection away, and see that every row is as it was before."""
    before = everything(opened)
    yield opened
    assert everything(opened) == before


def everything(opened: psycopg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table."""
    tables = [sql.Identifier(table) for table in TABLES]
    return {table.as_string(): opened.execute(sql.SQL("SELECT * FROM {}").format(table)).fetchall() for table in tables}


def statement(template: str, table: str) -> str:
    """Return a statement about a table and its last column that is no key."""
    columns = schema.metadata.tables[table].columns
    keys = [column.name for column in schema.metadata.tables[table].primary_key]
    rest = [name for name in columns.keys() if name not in keys] or keys  # noqa: SIM118 - a collection, not a dict
    guard = f"{table}_no_truncate"
    return template.format(table=table, key=", ".join(keys), first=keys[0], column=rest[-1], guard=guard)


@pytest.mark.parametrize("change", CHANGES)
def test_nobody_changes_a_row(anyone, change):
    """UPDATE, DELETE, TRUNCATE, upsert and MERGE of each table are refused, by rights or by the guards (T27)."""
    for table in TABLES:
        with pytest.raises((errors.InsufficientPrivilege, errors.IntegrityConstraintViolation)):
            anyone.execute(statement(CHANGES[change], table))


def test_rows_that_are_there_cannot_be_copied_over(anyone):
    """COPY of a row with a key that is there is refused for each table, as is any other insert of it."""
    refusals = (errors.UniqueViolation, errors.InsufficientPrivilege, errors.IntegrityConstraintViolation)
    for table in map(sql.Identifier, TABLES):
        row = anyone.execute(sql.SQL("SELECT * FROM {} LIMIT 1").format(table)).fetchall()[0]
        with pytest.raises(refusals), anyone.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(table)) as copy:
            copy.write_row(row)


@pytest.mark.parametrize("change", DEFINITIONS)
def test_the_service_changes_no_definition(service, change):
    """The service cannot alter, drop, own or lock any table, nor get a guard out of the way."""
    for table in TABLES:
        with pytest.raises(errors.InsufficientPrivilege):
            service.execute(statement(DEFINITIONS[change], table))


def test_the_service_has_no_right_to_give_to_itself(service):
    """GRANT by the service gives nothing: of each table it may read, and insert unless the owner's function does that for it."""
    for table in TABLES:
        service.execute(f"GRANT ALL ON {table} TO CURRENT_USER")
        kinds = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
        allowed = {kind for kind in kinds if may(service, table, kind)}
        assert allowed == ({"SELECT"} if table == "dropped" else {"SELECT", "INSERT"}), table


def may(service: psycopg.Connection, table: str, kind: str) -> bool:
    """Tell whether the service has a right on a table."""
    return service.execute("SELECT has_table_privilege(%s, %s)", (table, kind)).fetchall() == [(True,)]


@pytest.mark.parametrize("change", ROLES)
def test_the_service_gets_no_other_rights(service, change):
    """The service cannot become more than it is, nor reach the server's settings, files, functions and numbers."""
    with pytest.raises(errors.InsufficientPrivilege):
        service.execute(ROLES[change].format(database=service.info.dbname))


def test_every_guard_fires_always(superuser):
    """Each table has guards of ours on UPDATE, DELETE and TRUNCATE, and each fires whatever the session's replication role is."""
    found: dict[str, set[str]] = {}
    query = "SELECT tgrelid::regclass::text, tgenabled, tgtype FROM pg_trigger WHERE NOT tgisinternal"
    for table, enabled, kind in superuser.execute(query):
        assert enabled == "A", table
        found.setdefault(table, set()).update(
            name for bit, name in ((8, "delete"), (16, "update"), (32, "truncate")) if kind & bit
        )

    assert found == {table: {"update", "delete", "truncate"} for table in TABLES}


@pytest.mark.parametrize(
    ("n", "by_n", "why"),
    [
        (NEW, ADMIN, "no checkpoint covers it"),
        (OPEN, ADMIN, "its reservation is open"),
        (OVER, SUCCESS, "no event of central drops it"),
        (OVER, 99, "no event of central drops it"),
    ],
)
def test_a_body_is_dropped_by_the_rules_only(anyone, n, by_n, why):
    """The one function that drops bodies holds to the rules, for the service and for a superuser who skips triggers."""
    with pytest.raises(errors.IntegrityConstraintViolation, match=why):
        anyone.execute("SELECT drop_bodies(%s, %s, '{}', '{}')", (by_n, [n]))


def test_a_body_is_dropped_once(anyone):
    """A row whose body was dropped is not dropped again, by another event."""
    with pytest.raises(errors.UniqueViolation):
        anyone.execute("SELECT drop_bodies(%s, %s, '{}', '{}')", (ADMIN, [GONE]))


@pytest.mark.parametrize(
    "change", [f"body = '{{}}' WHERE n = {GONE}", f"body = '', kind = 'failure' WHERE n = {GONE}", f"body = '' WHERE n = {OVER}"]
)
def test_of_a_dropped_row_nothing_but_the_body_goes(superuser, change):
    """No other body, no other change together with an empty one, and no empty one where the row is not named as dropped."""
    with pytest.raises(errors.IntegrityConstraintViolation):
        superuser.execute(f"UPDATE event SET {change}")


def test_the_guards_look_at_our_tables_whatever_the_session_calls_so(superuser):
    """A table of the session's own by the name of ``dropped`` does not let a body go."""
    superuser.execute("CREATE TEMP TABLE dropped AS SELECT n FROM public.event")
    superuser.execute("SET search_path = pg_temp, public")

    with pytest.raises(errors.IntegrityConstraintViolation):
        superuser.execute(f"UPDATE public.event SET body = '' WHERE n = {OVER}")
    superuser.execute("DROP TABLE pg_temp.dropped")
    superuser.execute("SET search_path = public")


def test_only_the_service_may_have_bodies_dropped(postgres, url):
    """Another role of the server can neither read the log nor call the function that drops bodies."""
    with psycopg.connect(postgres.owner_url, autocommit=True) as admin:
        admin.execute("CREATE ROLE stranger LOGIN")
    with psycopg.connect(url.replace(SERVICE, "stranger"), autocommit=True) as stranger:
        for question in ("SELECT * FROM event", "SELECT drop_bodies(7, '{1}', '{}', '{}')"):
            with pytest.raises(errors.InsufficientPrivilege):
                stranger.execute(question)


def test_the_owner_of_the_tables_cannot_log_in(superuser):
    """The tables and functions belong to a role that has no login, no superuser's rights and no members but who migrates."""
    owners = superuser.execute(
        "SELECT DISTINCT r.rolname, r.rolcanlogin, r.rolsuper FROM pg_roles r WHERE r.oid IN "
        "(SELECT relowner FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "UNION SELECT proowner FROM pg_proc WHERE pronamespace = 'public'::regnamespace)"
    ).fetchall()

    assert owners == [(OWNER, False, False)]


def test_every_connection_keeps_what_it_acknowledges(postgres, url):
    """Every connection waits for the disk at commit, also where the database and the role are set not to."""
    database = sql.Identifier(url.rpartition("/")[2])
    with psycopg.connect(postgres.owner_url, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(database))
        admin.execute(
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET synchronous_commit = off").format(sql.Identifier(SERVICE), database)
        )
    expected = {"synchronous_commit": "on", "statement_timeout": "10s", "idle_in_transaction_session_timeout": "5s"}
    with psycopg.connect(url) as without:
        assert without.execute("SHOW synchronous_commit").fetchone() == ("off",)
    for engine, read_only in ((writing_engine(url), "off"), (reading_engine(url), "on")):
        with engine.connect() as connection:
            for name, value in {**expected, "lock_timeout": "5s", "default_transaction_read_only": read_only}.items():
                assert connection.exec_driver_sql(f"SHOW {name}").scalar() == value, name
        engine.dispose()


def test_a_server_that_may_lose_what_it_acknowledges_is_refused(tmp_path):
    """Central does not serve from a server that runs without fsync or full page writes; one line names the setting."""
    for setting in ("fsync", "full_page_writes"):
        server = PostgresServer(tmp_path)
        server.settings = {setting: "off"}
        with server as careless, pytest.raises(ConfigError, match=f"{setting}=off"):
            prepare(careless.url("postgres"))


def test_connections_that_our_settings_do_not_reach_are_refused(url, monkeypatch):
    """Where something between us and the server, such as a pool, swallows a connection's settings, central does not serve."""
    monkeypatch.setattr(storage, "_EVERY_CONNECTION", "")

    with pytest.raises(ConfigError, match=r"synchronous_commit=off|statement_timeout=0"):
        prepare(url)


def test_the_url_does_not_undo_our_settings(url):
    """Options in the database's URL do not take the place of ours."""
    engine = writing_engine(f"{url}?options=-c%20synchronous_commit=off")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    engine.dispose()


def test_no_transaction_of_ours_stays_open_for_long(url):
    """A transaction that does nothing is ended after 5 s and a statement after 10 s, so that neither holds others up."""
    idle, long = writing_engine(url), writing_engine(url)
    with psycopg.connect(url) as watching, idle.connect() as sleeping, long.connect() as working:
        (pid,) = sleeping.exec_driver_sql("SELECT pg_backend_pid()").one()
        raw: Any = working.connection.driver_connection
        with pytest.raises(errors.QueryCanceled, match="statement timeout"):
            raw.execute("SELECT pg_sleep(60)")
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: (watching.execute(gone, (pid,)).fetchone() or (False,))[0], timeout=10)
        with pytest.raises(DBAPIError, match="idle-in-transaction"):
            sleeping.exec_driver_sql("SELECT 1")
    for engine in (idle, long):
        engine.dispose()


def test_a_lock_is_waited_for_5_seconds_at_most(url):
    """A writer that another transaction keeps from a table gives up, and has written nothing."""
    with psycopg.connect(url.replace(SERVICE, "postgres")) as holding:
        holding.execute("LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
        engine = writing_engine(url)
        with contextlib.closing(engine.raw_connection()) as waiting, pytest.raises(errors.LockNotAvailable):
            waiting.cursor().execute("INSERT INTO policy SELECT 9, name, body, n, made_at FROM event, policy")
        engine.dispose()
