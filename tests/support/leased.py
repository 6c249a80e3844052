"""A stack whose OpenBao makes users in a real PostgreSQL, and what an operator sees of them: leases, users, tokens."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from tests.support.agent import LAUNCHER, POLICY
from tests.support.fault_proxy import Fault, always
from tests.support.files import Filed, filed
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.openbao import OpenBao

# What docs/leases.md says that the agent's role needs, beside reading.
LEASES = """
path "database/creds/*" { capabilities = ["read"] }
path "auth/token/create" { capabilities = ["update"] }
path "auth/token/lookup-accessor" { capabilities = ["update"] }
path "auth/token/renew-accessor" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
"""
ENV = {"DB_USER": "vault://database/creds/{}#username", "DB_PASSWORD": "vault://database/creds/{}#password"}
JSON = {"path": "db.json", "format": "json"}
CREATE = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"


@dataclass
class Leased:
    """A stack with files, and its PostgreSQL."""

    filed: Filed
    postgres: PostgresServer

    @property
    def openbao(self) -> OpenBao:
        """The server that makes the users."""
        return self.filed.stack.openbao

    def role(self, name: str, ttl: str = "1h", max_ttl: str = "24h") -> str:
        """Make a role of the database engine, and a scope of its name that has its user and password; return the name."""
        role = {"db_name": "app", "creation_statements": [CREATE], "default_ttl": ttl, "max_ttl": max_ttl}
        self.openbao.must("POST", f"database/roles/{name}", role)
        return name

    def scope(self, name: str, *, role: tuple[str, str] = ("1h", "24h"), **more: Any) -> str:
        """Make a role (its ttl and max ttl) and a scope for its user and password, in a file too; return its name."""
        self.role(name, *role)
        env = {key: reference.format(name) for key, reference in ENV.items()}
        self.filed.stack.agent.scope(name, **{"env": env, "files": [JSON], **more})
        self.filed.reload()
        wait_until(lambda: name in [scope["name"] for scope in self.filed.stack.agent.status()["scopes"]])
        return name

    @contextlib.contextmanager
    def running(self, name: str, *command: str) -> Iterator[subprocess.Popen[str]]:
        """Have a command run with a scope, watched by the agent."""
        words = command or ("/bin/sleep", "600")
        child = self.filed.stack.agent.spawn("--timeout", "60s", "--scope", name, "--", *words)
        try:
            wait_until(lambda: self.told(child.pid) or child.poll() is not None, 60)
            yield child
        finally:
            child.kill()
            child.communicate()

    def told(self, pid: int) -> dict[str, Any] | None:
        """Return what status says of a run."""
        return next((run for run in self.filed.stack.agent.status()["runs"] if run["pid"] == pid), None)

    @contextlib.contextmanager
    def without_central(self) -> Iterator[None]:
        """Have central take nothing for a while."""
        with self.filed.stack.to_central.failing(always(Fault("reset"))):
            yield

    def notes(self, reason: str) -> list[str]:
        """Return what the log notes under a word."""
        rows = [event["fields"] for event in self.filed.stack.central.events()]
        return [row["message"] for row in rows if row.get("reason") == reason]

    def children(self, audit_id: str) -> list[str]:
        """Return the accessors of the child tokens of a release, as the server knows them."""
        everyone = self.openbao.must("LIST", "auth/token/accessors")["data"]["keys"]
        found = [self.openbao.request("POST", "auth/token/lookup-accessor", {"accessor": each}) for each in everyone]
        told = [answer["data"] for status, answer in found if status == 200]
        return [each["accessor"] for each in told if (each.get("meta") or {}).get("audit_id") == audit_id]

    def central(self, *words: str) -> None:
        """Have an operator of central run a command, which must succeed."""
        central = self.filed.stack.central
        environment = {"PRISM_VAULT_CENTRAL_URL": central.url, "PRISM_VAULT_OPERATOR_TOKEN": central.operator_token}
        words = (LAUNCHER, "central", *words)
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done

    def leases(self, name: str) -> list[str]:
        """Return the leases of a role that the server has."""
        status, answer = self.openbao.request("LIST", f"sys/leases/lookup/database/creds/{name}")
        return sorted(answer["data"]["keys"]) if status == 200 else []

    def users(self, name: str) -> list[str]:
        """Return the users that PostgreSQL has of a role."""
        with psycopg.connect(self.postgres.url("postgres", "postgres")) as admin:
            found = admin.execute("SELECT rolname FROM pg_roles WHERE position(%s IN rolname) > 0", [f"-{name[:8]}-"]).fetchall()
        return sorted(row[0] for row in found)

    def count(self, name: str) -> tuple[int, int]:
        """Return how many leases the server has of a role, and how many users PostgreSQL."""
        return len(self.leases(name)), len(self.users(name))

    def becomes(self, name: str, count: int, seconds: float = 60) -> None:
        """Wait until the server has so many leases of a role, and PostgreSQL as many users."""
        try:
            wait_until(lambda: self.count(name) == (count, count), seconds)
        except AssertionError:
            raise AssertionError((self.count(name), self.filed.stack.agent.log[-4000:])) from None

    def logs_in(self, user: str, password: str) -> bool:
        """Tell whether PostgreSQL lets somebody in by password."""
        return logs_in(self.postgres, user, password)


def logs_in(postgres: PostgresServer, user: str, password: str) -> bool:
    """Tell whether a PostgreSQL lets somebody in by password."""
    try:
        psycopg.connect(host="127.0.0.1", port=postgres.port, user=user, password=password, dbname="audit").close()
    except psycopg.OperationalError:
        return False
    return True


def database(openbao: OpenBao, postgres: PostgresServer) -> None:
    """Have a PostgreSQL ask everybody but its administrator for a password, and OpenBao make users in it."""
    rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    (postgres.data / "pg_hba.conf").write_text(rules)
    with psycopg.connect(postgres.url("postgres", "postgres"), autocommit=True) as admin:
        admin.execute("SELECT pg_reload_conf()")
    openbao.must("POST", "sys/mounts/database", {"type": "database"})
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}/postgres?sslmode=disable"
    connection = {"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url}
    openbao.must("POST", "database/config/app", {**connection, "username": "postgres", "password": "unused"})


@contextlib.contextmanager
def leased(*, poll: str = "1s", **options: Any) -> Iterator[Leased]:
    """Run a stack, and a PostgreSQL that asks everybody but its administrator for a password."""
    with (
        tempfile.TemporaryDirectory(prefix="pv-") as directory,
        PostgresServer(Path(directory)) as postgres,
        filed(poll=poll, **options) as made,
    ):
        made.stack.openbao.policy("prism-vault", POLICY + LEASES)
        database(made.stack.openbao, postgres)
        yield Leased(made, postgres)
