"""Tokens and policies on both databases and on every replica: what was answered holds there at once, and soon everywhere."""

from __future__ import annotations

import contextlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from prism_vault_agent.central.storage import schema
from prism_vault_agent.central.storage.engines import reading_engine
from tests.central.access import RULE, code, get, made, new_name, put, remove
from tests.central.conftest import POLICIES
from tests.central.host import Host
from tests.support.central import CentralProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHO = {"name": "test-operator", "by": "configured_token"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def replicas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[CentralProcess]]:
    """Return one central on a file, or two on one PostgreSQL; both know the same credentials."""
    directory = tmp_path_factory.mktemp(request.param)
    with contextlib.ExitStack() as ending:
        server = request.getfixturevalue("server") if request.param == "postgresql" else None
        first = CentralProcess(_within(directory, "one"), agents={"server1": ["prism"]}, policies=POLICIES, server=server)
        running = [ending.enter_context(first)]
        if server is not None:
            running.append(ending.enter_context(first.replica(_within(directory, "two"))))
        yield running


def _within(directory: Path, name: str) -> Path:
    made = directory / name
    made.mkdir(parents=True)
    return made


def told(central: CentralProcess, token: str, expected: str) -> bool:
    """Tell whether central says this about a token."""
    return code(central, token, "/v1/tokens") == expected


def reserves(central: CentralProcess, expected: int = 201) -> bool:
    """Tell whether central answers a reservation of scope ``extra`` with this status."""
    host = Host(central)
    return host.send(host.make("reserved", scopes=["extra"])).status_code == expected


def rows(central: CentralProcess, kind: str, reason: str, about: str, name: str) -> list[dict[str, Any]]:
    """Return the fields of the rows with which central recorded a change of a token or policy."""
    engine = reading_engine(central.setting("database"))
    with engine.connect() as connection:
        bodies = connection.execute(select(schema.event.c.body).where(schema.event.c.kind == kind)).scalars()
        fields = [json.loads(bytes(body)) for body in bodies]
    engine.dispose()
    return [each for each in fields if each["reason"] == reason and each[about]["name"] == name]


def test_a_token_lives_and_is_revoked_everywhere(replicas):
    """A token is believed where it was made and soon on all; once revoked nowhere, also not after a restart; the log says who."""
    central = replicas[0]
    answer = made(central, scopes=["audit:read", "tokens:read"])
    token, name = answer["token"], answer["name"]

    assert code(central, token, "/v1/tokens") == "ok"
    for replica in replicas:
        wait_until(partial(told, replica, token, "ok"), 3)
    with central.client() as client:
        revoked = client.delete(f"/v1/tokens/{name}").json()
        again = client.delete(f"/v1/tokens/{name}").json()
    assert (revoked["revoked_by"], again["revoked_at"]) == (WHO, revoked["revoked_at"])
    assert code(central, token, "/v1/tokens") == "token_revoked"
    for replica in replicas:
        wait_until(partial(told, replica, token, "token_revoked"), 3)
    replicas[-1].restart()
    assert code(replicas[-1], token, "/v1/tokens") == "token_revoked"
    (first,) = rows(central, "admin", "token_made", "token", name)
    (last,) = rows(central, "admin", "token_revoked", "token", name)
    assert (first["by"], last["by"], first["project"]) == (WHO, WHO, "prism")
    assert first["token"]["scopes"] == ["audit:read", "tokens:read"]


def test_a_token_ends_everywhere(replicas):
    """A token is believed until its time and on no replica after it, without anybody doing anything."""
    token = made(replicas[0], expires_in=3, scopes=["tokens:read"])["token"]

    assert code(replicas[0], token, "/v1/tokens") == "ok"
    for replica in replicas:
        wait_until(partial(told, replica, token, "token_expired"), 6)


def test_a_policy_holds_and_is_removed_everywhere(replicas):
    """A policy allows where it was set and soon on all; once removed nowhere, also not after a restart; the log has both."""
    central, name = replicas[0], new_name()
    assert reserves(central, 403)
    version = put(central, name).json()["version"]

    assert reserves(central)
    for replica in replicas:
        wait_until(partial(reserves, replica), 3)
    assert remove(central, name).json()["version"] == version + 1
    assert reserves(central, 403)
    for replica in replicas:
        wait_until(partial(reserves, replica, 403), 3)
    replicas[-1].restart()
    assert reserves(replicas[-1], 403)
    (added,) = rows(central, "policy", "policy_set", "policy", name)
    (removed,) = rows(central, "policy", "policy_removed", "policy", name)
    assert (added["by"], removed["by"], added["project"], added["scopes"]) == (WHO, WHO, "prism", ["extra"])
    assert added["policy"]["rule"]["scopes"] == ["extra"]
    assert removed["policy"] == {"name": name, "version": version + 1, "rule": None}


def test_versions_are_contiguous_whoever_changes(replicas):
    """Changes through all replicas at once get versions without gaps, and each is told once to those who listen."""
    before = get(replicas[0])["version"]
    names = [new_name() for _ in range(12)]
    clients = [replica.client() for replica in replicas]
    with contextlib.ExitStack() as ending:
        for client in clients:
            ending.enter_context(client)
        pool = ending.enter_context(ThreadPoolExecutor(6))
        answers = pool.map(
            lambda pair: pair[1].put(f"/v1/policies/{pair[0]}", json=RULE).json()["version"],
            zip(names, itertools.cycle(clients)),
        )
        versions = sorted(answers)
    for name in names:
        remove(replicas[0], name)

    assert versions == list(range(before + 1, before + 13))
    assert [get(replicas[-1], version=at)["version"] for at in (versions[0], versions[-1])] == [versions[0], versions[-1]]


def test_a_lost_update_is_refused_on_every_replica(replicas):
    """Of two operators who have seen the same version, through whichever replica, one changes it and the other is told."""
    name = new_name()
    etag = put(replicas[0], name, headers={"If-None-Match": "*"}).headers["etag"]
    answers = [
        put(replica, name, purposes=[f"p{at}"], headers={"If-Match": etag}) for at, replica in enumerate((*replicas, *replicas))
    ]
    remove(replicas[0], name)

    assert [answer.status_code for answer in answers] == [200, *[412] * (len(answers) - 1)]
    assert {answer.json()["code"] for answer in answers[1:]} == {"changed"}
