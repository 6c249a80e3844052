"""Engines and roles beside users made in PostgreSQL: what is leased is told by the server's answer, so each works alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from tests.support.agent import POLICY
from tests.support.leased import JSON, LEASES, Leased, leased
from tests.support.rabbitmq import RabbitMq
from tests.support.redis import PASSWORD, RedisServer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READING = "".join(
    f'path "{path}/*" {{ capabilities = ["read"] }}\n'
    for path in ("rabbitmq/creds", "database/static-creds", "database/static-roles")
)
PRINT = ("/bin/sh", "-c", 'printf \'%s %s\' "$DB_USER" "$DB_PASSWORD"; exec >&-; exec sleep 600')


@pytest.fixture(scope="module")
def made() -> Iterator[Leased]:
    """A stack of this file's own."""
    with leased() as running:
        running.openbao.policy("prism-vault", POLICY + LEASES + READING)
        yield running


@pytest.fixture(scope="module")
def redis(tmp_path_factory) -> Iterator[RedisServer]:
    """A real Redis."""
    place: Path = tmp_path_factory.mktemp("redis")
    with RedisServer(place) as server:
        yield server


@pytest.mark.parametrize("plugin", ["redis-database-plugin", "valkey-database-plugin"])
def test_a_user_of_redis_ends_with_its_run(made, redis, plugin):
    """A run logs in with the user and password that it was given; when it has ended, nobody does any more."""
    name = plugin.partition("-")[0]
    connection = {"plugin_name": plugin, "allowed_roles": "*", "host": "127.0.0.1", "port": redis.port}
    made.openbao.must("POST", f"database/config/{name}", {**connection, "username": "default", "password": PASSWORD})
    role = {"db_name": name, "creation_statements": ['["~cache:*", "+@read", "+ping"]'], "default_ttl": "1h"}
    made.openbao.must("POST", f"database/roles/{name}", role)
    made.filed.stack.agent.scope(
        name, {"DB_USER": f"vault://database/creds/{name}#username", "DB_PASSWORD": f"vault://database/creds/{name}#password"}
    )
    made.filed.reload()
    wait_until(lambda: name in [scope["name"] for scope in made.filed.stack.agent.status()["scopes"]])
    with made.running(name, *PRINT) as child:
        assert child.stdout is not None
        user, password = child.stdout.read().split()
        assert redis.logs_in(user, password) and not redis.logs_in(user, "another")
        assert len(made.leases(name)) == 1
    wait_until(lambda: made.leases(name) == [], 60)
    assert not redis.logs_in(user, password)


def test_two_engines_in_one_scope_are_one_release(made, redis):
    """A scope with users of two databases and a secret of KV has both leases on one child token, and both end with its run."""
    name = made.role("bothengines")
    connection = {"plugin_name": "redis-database-plugin", "allowed_roles": "*", "host": "127.0.0.1", "port": redis.port}
    made.openbao.must("POST", "database/config/two", {**connection, "username": "default", "password": PASSWORD})
    role = {"db_name": "two", "creation_statements": ['["+ping"]'], "default_ttl": "1h"}
    made.openbao.must("POST", "database/roles/two", role)
    env = {"A": f"vault://database/creds/{name}#username", "B": "vault://database/creds/two#username"}
    made.filed.stack.agent.scope(name, {**env, "C": "vault://secret/web#canary"})
    made.filed.reload()
    wait_until(lambda: name in [scope["name"] for scope in made.filed.stack.agent.status()["scopes"]])
    with made.running(name) as child:
        told = made.told(child.pid)
        assert sorted(each["path"] for each in told["leases"]) == [f"database/creds/{name}", "database/creds/two"]
        assert len(made.children(told["id"])) == 1
        leases = made.filed.rows(told["id"])[1]["leases"]
        assert sorted((lease["path"], bool(lease["lease_id"]), lease["version"]) for lease in leases) == [
            (f"database/creds/{name}", True, None),
            ("database/creds/two", True, None),
            ("secret/web", False, 1),
        ]
    made.becomes(name, 0)
    wait_until(lambda: made.leases("two") == [], 60)


@pytest.mark.timeout(300)  # a broker takes its time on a busy machine
@pytest.mark.tool("rabbitmq-server")
def test_an_engine_that_we_have_no_word_of_is_leased_like_the_others(made, tmp_path):
    """A user of RabbitMQ is renewed while a run holds it, replaced with its file, and gone from the broker with both."""
    name, path = "queue", "rabbitmq/creds/queue"
    openbao, file = made.openbao, made.filed.top / name / "db.json"

    def leases() -> list[str]:
        status, answer = openbao.request("LIST", f"sys/leases/lookup/{path}")
        return list(answer["data"]["keys"]) if status == 200 else []

    with RabbitMq(tmp_path) as broker:
        openbao.must("POST", "sys/mounts/rabbitmq", {"type": "rabbitmq"})
        openbao.must("POST", "rabbitmq/config/connection", broker.connection)
        openbao.must("POST", "rabbitmq/config/lease", {"ttl": 5, "max_ttl": 3600})
        openbao.must("POST", f"rabbitmq/roles/{name}", {"tags": "monitoring"})
        env = {"DB_USER": f"vault://{path}#username", "DB_PASSWORD": f"vault://{path}#password"}
        made.filed.stack.agent.scope(name, env, files=[JSON], grace="1s")
        made.filed.reload()
        wait_until(lambda: name in [scope["name"] for scope in made.filed.stack.agent.status()["scopes"]])
        with made.running(name, *PRINT) as child:
            assert child.stdout is not None
            user, password = child.stdout.read().split()
            assert broker.lets_in(user, password) and not broker.lets_in(user, "another")
            made.filed.render(name)
            first = json.loads(file.read_text())["DB_USER"]
            made.filed.render(name)
            second = json.loads(file.read_text())["DB_USER"]
            wait_until(lambda: first not in broker.users() and len(leases()) == 2, 60)
            wait_until(lambda: made.told(child.pid)["leases"][0]["renewed"], 60)
            assert broker.users() == sorted([user, second])
        wait_until(lambda: broker.users() == [second] and len(leases()) == 1, 60)
        assert not broker.lets_in(user, password)
        made.central("revoke", "--reference", f"vault://{path}", "--reason", "test")
        wait_until(lambda: broker.users() == leases() == [], 60)
        assert not file.exists()


def static(made: Leased, name: str, period: str = "24h", **more: Any) -> str:
    """Make a user of the database, whose password the engine sets each ``period``, and a scope that has it in a file."""
    with psycopg.connect(made.postgres.url("postgres", "postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    role = {"db_name": "app", "username": name, "rotation_period": period}
    made.openbao.must("POST", f"database/static-roles/{name}", role)
    env = {
        "DB_USER": f"vault://database/static-creds/{name}#username",
        "DB_PASSWORD": f"vault://database/static-creds/{name}#password",
    }
    made.filed.stack.agent.scope(name, env, files=[JSON], **more)
    made.filed.reload()
    wait_until(lambda: name in [each["name"] for each in made.filed.stack.agent.status()["scopes"]])
    return name


def rendered(made: Leased, name: str) -> dict[str, str]:
    """Return what stands in the file of a scope."""
    return dict(json.loads((made.filed.top / name / "db.json").read_text()))


def test_a_password_that_the_provider_sets_is_a_rotation(made):
    """File and process have the password that opens the database, and the next one within a poll of when it is set."""
    name = static(made, "rotated", on_rotate="terminate", grace="1s")
    made.filed.render(name)
    first, before = rendered(made, name), made.filed.told(name)
    assert first["DB_USER"] == name and made.logs_in(name, first["DB_PASSWORD"])
    with made.running(name) as child:
        run_id = made.told(child.pid)["id"]
        made.openbao.must("POST", f"database/rotate-role/{name}")
        assert not made.logs_in(name, first["DB_PASSWORD"])
        wait_until(lambda: rendered(made, name) != first, 60)
        assert made.logs_in(name, rendered(made, name)["DB_PASSWORD"])
        child.wait(60)
    assert (made.filed.ended(before["id"]), made.filed.ended(run_id)) == ("rotated", "on_rotate")
    path = f"database/static-creds/{name}"
    assert made.filed.told(name)["versions"][path] > before["versions"][path] > 0
    wait_until(lambda: made.children(before["id"]) == made.children(run_id) == [], 60)


def test_a_password_that_the_provider_sets_at_its_time_is_looked_for_then(made):
    """A scope that is polled once a minute has the next password of its user as soon as the provider's period is over."""
    name = static(made, "periodic", period="5s", poll="60s", grace="1s")
    made.filed.render(name)
    first = rendered(made, name)
    wait_until(lambda: rendered(made, name) != first)
    assert not made.logs_in(name, first["DB_PASSWORD"])
    made.openbao.must("DELETE", f"database/static-roles/{name}")


def test_what_the_provider_has_no_role_of_any_more_is_taken_back(made):
    """A deleted role clears its file within a poll, as a deleted secret does."""
    name = static(made, "withdrawn")
    made.filed.render(name)
    audit_id = made.filed.told(name)["id"]
    made.openbao.must("DELETE", f"database/static-roles/{name}")
    wait_until(lambda: not (made.filed.top / name).exists(), 60)
    assert made.filed.ended(audit_id) == "secret_no_such_path"
