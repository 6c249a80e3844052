"""A unit of a booted systemd whose credential is a user of a real PostgreSQL, over restarts of the agent; nothing is left."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.agent import POLICY
from tests.support.agent_unit import AGENT, ETC
from tests.support.leased import CREATE, LEASES, database, logs_in
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.agent_unit import AgentUnit

UNIT = "leased.service"
PATH = "/run/prism-vault/credentials.sock"


@dataclass
class Held:
    """``leased.service``, which gets its user and password as a credential in JSON."""

    host: AgentUnit
    postgres: PostgresServer

    def leases(self) -> list[str]:
        """Return the leases that the server has."""
        status, answer = self.host.openbao.request("LIST", "sys/leases/lookup/database/creds/unit")
        return sorted(answer["data"]["keys"]) if status == 200 else []

    def users(self) -> list[str]:
        """Return the users that PostgreSQL has by them."""
        with psycopg.connect(self.postgres.url("postgres", "postgres")) as admin:
            return [row[0] for row in admin.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'").fetchall()]

    def credential(self) -> dict[str, str]:
        """Return what the unit finds."""
        return dict(json.loads(self.host.booted.path(f"/run/credentials/{UNIT}/db.json").read_text()))

    def run(self) -> dict[str, Any]:
        """Return the unit's run, as ``status`` shows it."""
        (found,) = [run for run in self.host.status()["runs"] if run["unit"] == UNIT]
        return dict(found)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server that asks everybody but its administrator for a password."""
    with tempfile.TemporaryDirectory(prefix="pv-") as directory, PostgresServer(Path(directory)) as server:
        yield server


@pytest.fixture(scope="module")
def held(host: AgentUnit, postgres: PostgresServer) -> Iterator[Held]:
    """The unit, not started, and all that it takes."""
    database(host.openbao, postgres)
    host.openbao.policy("prism-vault", POLICY + LEASES)
    role = {"db_name": "app", "creation_statements": [CREATE], "default_ttl": "15s", "max_ttl": "1h"}
    host.openbao.must("POST", "database/roles/unit", role)
    host.booted.path(f"{ETC}/scopes.d/leased.toml").write_text(
        '[scopes.leased]\nproject = "prism"\nenvironment = "lan"\npurposes = ["service"]\ngrace = "1s"\n'
        f'callers = [{{ kind = "service", unit = "{UNIT}" }}]\n'
        '[scopes.leased.env]\nDB_USER = "vault://database/creds/unit#username"\n'
        'DB_PASSWORD = "vault://database/creds/unit#password"\n'
        '[[scopes.leased.credentials]]\nname = "db.json"\nformat = "json"\n'
    )
    host.unit(UNIT, f"[Service]\nType=exec\nUser=nobody\nLoadCredential=db.json:{PATH}\nExecStart=/bin/sleep infinity\n")
    host.booted.run("systemctl", "restart", AGENT)
    wait_until(lambda: host.status()["ready"] and "leased" in [scope["name"] for scope in host.status()["scopes"]])
    yield Held(host, postgres)
    host.booted.path(f"{ETC}/scopes.d/leased.toml").unlink()
    host.without(UNIT)
    host.openbao.policy("prism-vault", POLICY)


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_a_leased_credential_lives_on_over_agents_and_ends_with_its_unit(held, how):
    """The next agent renews the lease of a unit that runs on, with the same user; when the unit is stopped, nothing is left."""
    host = held.host
    assert host.systemctl("restart", UNIT, check=False) == 0, host.booted.journal(AGENT)
    user, before = held.credential(), held.run()
    assert logs_in(held.postgres, user["DB_USER"], user["DB_PASSWORD"])
    assert (len(held.leases()), held.users()) == (1, [user["DB_USER"]])
    assert [lease["path"] for lease in before["leases"]] == ["database/creds/unit"]
    agent = host.pid()
    if how == "killed":
        host.signal("KILL")
        wait_until(lambda: host.pid() not in ("0", agent) and host.active(AGENT))
    else:
        host.systemctl("restart", AGENT)
    wait_until(lambda: host.status()["ready"])
    wait_until(lambda: held.run()["leases"][0]["renewed"] >= 2, 60)  # longer than it would live by itself
    assert host.active(UNIT) and held.run()["id"] == before["id"]
    assert held.credential() == user and logs_in(held.postgres, user["DB_USER"], user["DB_PASSWORD"])
    assert len(held.leases()) == 1
    host.systemctl("stop", UNIT)
    wait_until(lambda: (held.leases(), held.users()) == ([], []), 60)
    assert not logs_in(held.postgres, user["DB_USER"], user["DB_PASSWORD"])
    reservation = before["id"].removeprefix("pva_")
    wait_until(
        lambda: [row["reason"] for row in host.rows("cleared", "leased") if row["reservation"] == reservation] == ["exited"]
    )
